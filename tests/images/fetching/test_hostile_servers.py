"""Web servers and names that would have us write where we should not, or never end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.images.fetching.checksum import Checksum, find_checksum
from pytest_kvm.images.fetching.partial import Origin, Partial
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.records import Place
from pytest_kvm.images.fetching.web import download, read
from pytest_kvm.spec.image import Image
from tests.images.disks import BINARY
from tests.images.fetching.servers import CHECKSUM, Server, file, redirect

ONCE = Patience(silence=2, pauses=())
HEX = "7d6355852aeb6dbcd191bcda7cd74f1536cfe5cbf8a10495a7283a8396e4b75b"


# Answers


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[str]:
    """Serve one connection after the other with this, whatever is asked; yield the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/disk.img"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


LINES = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 206 Partial",
            b"HTTP/1.1 302 Found",
            b"HTTP/1.1 416 No",
            b"HTTP/1.1 999",
            b"HTTP/9",
        ),
        *(b"Content-Length: 3", b"Content-Length: " + b"9" * 5000, b"Content-Length: -1", b"Content-Length: \xc2\xb2"),
        *(b"Content-Range: bytes 0-2/3", b"Content-Range: bytes 0-2/" + b"9" * 5000, b"Content-Range: bytes 9-1/*"),
        *(
            b"Location: file:///etc/passwd",
            b"Location: ftp://h/",
            b"Location: http://[",
            b"Location: \xff",
            b"Location: //",
        ),
        *(
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: gzip",
            b'ETag: "x"',
            b"Content-Disposition: x; filename=../../x",
        ),
        *(b"", b"x" * 300, b"\xff\xfe", b"\x1b[2J", b"ffffffffffffffff", b"3", b"abc", b"0"),
    ]
)
ANSWERS = st.builds(
    lambda status, lines, body: b"\r\n".join([status, *lines, b"", body]),
    LINES.filter(lambda line: line.startswith(b"HTTP")) | st.binary(max_size=20),
    st.lists(LINES, max_size=6),
    st.binary(max_size=20),
)


# urllib3 leaves the sockets of answers that it cannot read to the garbage collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=120)
@given(ANSWERS)
def test_any_answer(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name, answering(data) as url:
        into = Path(name) / "images" / "disk.img"
        with pytest.raises(ImageUnavailable) as caught:
            download([url], into, checksum=CHECKSUM, patience=ONCE)
        assert "\x1b" not in str(caught.value)
        assert set(os.listdir(name)) <= {"images"}
        assert set(os.listdir(into.parent) if into.parent.exists() else []) <= {
            "disk.img.partial",
            "disk.img.partial.json",
        }
        with contextlib.suppress(ImageUnavailable):
            assert len(read(url, 10, patience=ONCE)) <= 10


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://[", "//", "x:"]
)
def test_redirects_to_elsewhere(server: Server, into: Path, target: str) -> None:
    url = server.at("/disk.img", redirect(target))
    with pytest.raises(ImageUnavailable, match="cannot be fetched"):
        download([url], into, checksum=CHECKSUM, patience=ONCE)
    assert not into.exists()


# Names

NAMES = st.one_of(
    st.sampled_from(
        [
            "..",
            ".",
            "../x",
            "/etc/passwd",
            "a/b",
            ".lock",
            "x.lock",
            "-rf",
            "x" * 300,
            "a\0b",
            "a\nb",
            "\udcff",
            "",
            "CON",
            "~",
        ]
    ),
    st.text(min_size=1, max_size=20),
)


@given(NAMES)
def test_every_name_has_a_place_of_its_own(name: str) -> None:
    directory = Path("/cache/downloads")
    try:
        place = Place(directory, name)
    except SpecError:
        assert name == ""
        return
    for path in (place.folder, place.lock):
        assert Path(os.path.normpath(path)).parent == directory
    assert place.folder.name not in {"", ".", ".."}
    assert not place.folder.name.startswith(".")


@given(st.sampled_from(["http://h/", "https://u:p@h:80/a/", "HTTP://h"]), NAMES)
def test_any_address(start: str, name: str) -> None:
    catalogue = Catalogue(binary=lambda: BINARY)
    for given_ in (f"{start}{name}#sha256={HEX}", f"{start}{name}"):
        try:
            found = catalogue.source(given_)
        except SpecError:
            continue
        assert found is not None
        stored, source = found
        assert "/" not in source.filename
        assert source.filename not in {"", ".", ".."}
        assert Path(os.path.normpath(Place(Path("/cache"), stored).folder)).parent == Path("/cache")
    with contextlib.suppress(SpecError):
        Image(f"{start}{name}", checksum=f"sha256:{HEX}")


def test_a_name_from_an_address_stays_in_its_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    catalogue = Catalogue(binary=lambda: BINARY)
    for path in ("/..%2f..%2fx", "/%2e%2e", "/a/..%5cx", "/x%00y"):
        url = server.at(path, file(b"forged"))
        with pytest.raises((ImageUnavailable, SpecError)):
            catalogue.find(f"{url}#sha256={HEX}")
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "downloads" not in path.parts]
    assert outside == []


# Lists of checksums, and what was remembered


@given(
    st.text(max_size=60) | st.lists(st.sampled_from([HEX, " ", "*", "disk.img", "SHA256 (", ") = ", "\n"])).map("".join)
)
def test_any_list_of_checksums(text: str) -> None:
    with contextlib.suppress(ImageUnavailable):
        assert find_checksum(text, "disk.img").kind in {"md5", "sha1", "sha256", "sha512"}
    with contextlib.suppress(SpecError):
        Checksum.parse(text)


@pytest.mark.parametrize("line", ["A(" + ")= a" * 100_000, "a" * 400_000, "0" * 128 + " " * 300_000, "(" * 400_000])
def test_no_list_takes_long(line: str) -> None:
    with contextlib.suppress(ImageUnavailable):
        find_checksum(line, "disk.img")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["name", "url", "checksum", "checksum_url", "sha256", "filename"]), JSON), JSON)
def test_any_record(changes: dict[str, object], number: object) -> None:
    good = {
        **{"name": "disk", "url": "http://h/d", "checksum": f"sha256:{HEX}", "checksum_url": None, "sha256": HEX},
        **{"filename": "d", "size": number, "fetched": number, "identity": "1"},
    }
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        place = Place(Path(name), "disk")
        place.folder.mkdir()
        (place.folder / "d").write_text("disk")
        (place.folder / ".record.json").write_text(json.dumps({**good, **changes}))
        record = place.record()
        if record is not None:
            assert place.file(record).parent == place.folder
            with contextlib.suppress(ImageUnavailable):
                place.check(record)
        memory = Path(name) / "x.partial.json"
        memory.write_text(json.dumps({"url": number, "validator": changes.get("name"), "total": changes.get("url")}))
        (Path(name) / "x.partial").write_text("part")
        origin = Partial(Path(name) / "x").origin()
        assert origin is None or isinstance(origin, Origin)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", "\xff", '{"name": 1}'])
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    place = Place(tmp_path, "disk")
    place.folder.mkdir()
    (place.folder / ".record.json").write_text(text, encoding="latin-1")
    assert place.record() is None
