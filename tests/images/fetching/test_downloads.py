"""The store of fetched disks: each handed out as it was fetched, or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.downloads import Downloads
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.source import Source
from tests.images.fetching.servers import CHECKSUM, DATA, Server, file, redirect, status

OTHER = DATA[::-1]
ONCE = Patience(silence=10, pauses=())


@pytest.fixture
def store(place: Path) -> Downloads:
    """An empty store."""
    return Downloads(place, patience=ONCE)


def publish(secure: Server, data: bytes, kind: str = "sha512") -> Source:
    """Return a disk that is whatever the publisher says; now it is ``data``."""
    checksum = Checksum.of_stream(kind, io.BytesIO(data))
    return Source(
        urls=(secure.at("/disk.img", file(data, tag=f'"{checksum.hex}"')),),
        filename="disk.img",
        checksum_url=secure.at("/SUMS", file(f"{checksum.hex}  disk.img\n".encode())),
    )


def nothing(store: Downloads, name: str = "debian:13") -> bool:
    return store.path(name) is None and store.entries() == []


def no_hashing(*_: object) -> None:
    pytest.fail("a file was read")


def test_get(store: Downloads, server: Server, source: Source, place: Path) -> None:
    assert nothing(store)
    before = time.time()
    path = store.get("debian:13", source)
    assert path == store.path("debian:13") == place / "debian-13" / "disk.img"
    assert path.read_bytes() == DATA
    assert sorted(os.listdir(path.parent)) == [".record.json", "disk.img"]
    assert store.get("debian:13", source) == store.verify("debian:13") == path
    assert server.paths == ["/disk.img"]
    [entry] = store.entries()
    assert (entry.name, entry.path, entry.size, entry.partial, entry.trouble) == ("debian:13", path, len(DATA), 0, "")
    assert before <= entry.time <= time.time()
    record = entry.record
    assert record is not None
    assert (record.url, record.checksum, record.sha256) == (source.urls[0], CHECKSUM, CHECKSUM.hex)


def test_one_that_is_there_costs_nothing(store: Downloads, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    store.get("debian:13", source)
    monkeypatch.setattr(Checksum, "of_file", no_hashing)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        store.get("debian:13", source)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.002
    assert [entry.trouble for entry in store.entries()] == [""]


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
def test_published_checksum_is_kept(store: Downloads, secure: Server, kind: str) -> None:
    source = publish(secure, DATA, kind)
    path = store.get("debian:13", source)
    assert secure.paths == ["/SUMS", "/disk.img"]
    publish(secure, OTHER)
    assert store.get("debian:13", source).read_bytes() == DATA
    assert len(secure.asked) == 2
    with path.open("rb") as stream:
        assert store.pull("debian:13", source) is True
        assert stream.read() == DATA, "whoever has it open keeps it"
    assert store.get("debian:13", source).read_bytes() == OTHER
    secure.asked.clear()
    assert store.pull("debian:13", source) is False
    assert secure.paths == ["/SUMS"]
    [entry] = store.entries()
    assert entry.record is not None
    assert entry.record.sha256 == hashlib.sha256(OTHER).hexdigest()


def test_publisher_without_the_file(store: Downloads, secure: Server) -> None:
    source = publish(secure, DATA)
    sums = secure.at("/SUMS", file(b"0" * 64 + b"  other.img\n"))
    with pytest.raises(ImageUnavailable) as caught:
        store.get("debian:13", source)
    assert str(caught.value).startswith(f"{sums} has no checksum of disk.img (it lists other.img)\n")
    secure.at("/SUMS", status(404))
    with pytest.raises(ImageUnavailable, match=re.escape(f"{sums} cannot be fetched: 404 Not Found")):
        store.get("debian:13", source)
    assert nothing(store)
    assert store.get("debian:13", publish(secure, DATA)).read_bytes() == DATA


def test_checksum_that_comes_without_encryption(store: Downloads, secure: Server, server: Server) -> None:
    source = publish(secure, DATA)
    secure.at("/SUMS", redirect(server.at("/SUMS", file(b"forged"))))
    with pytest.raises(ImageUnavailable, match=r"it redirects to http://.*, without https"):
        store.get("debian:13", source)
    assert nothing(store)
    assert server.asked == []


def test_wrong_content(store: Downloads, server: Server, source: Source) -> None:
    server.at("/disk.img", file(OTHER))
    with pytest.raises(ImageUnavailable, match=f"announces: expected SHA-256 {CHECKSUM.hex}, got "):
        store.get("debian:13", source)
    assert store.path("debian:13") is None
    assert [(entry.path, entry.size, entry.partial) for entry in store.entries()] == [(None, 0, 0)]
    server.at("/disk.img", file(DATA))
    assert store.get("debian:13", source).read_bytes() == DATA


def test_pull_that_fails_leaves_the_old_one(store: Downloads, secure: Server) -> None:
    source = publish(secure, DATA)
    store.get("debian:13", source)
    publish(secure, OTHER)
    secure.at("/disk.img", status(404))
    with pytest.raises(ImageUnavailable, match="404 Not Found"):
        store.pull("debian:13", source)
    assert store.get("debian:13", source).read_bytes() == DATA


def test_another_declaration(store: Downloads, server: Server, source: Source, place: Path) -> None:
    store.get("debian:13", source)
    same = Checksum.of_stream("md5", io.BytesIO(DATA))
    store.get("debian:13", Source(urls=source.urls, filename="disk.img", checksum=same))
    assert len(server.asked) == 1, "it is known by its content"
    checksum = Checksum.of_stream("sha256", io.BytesIO(OTHER))
    other = Source(urls=(server.at("/new.img", file(OTHER)),), filename="new.img", checksum=checksum)
    assert store.get("debian:13", other).read_bytes() == OTHER
    assert sorted(os.listdir(place / "debian-13")) == [".record.json", "new.img"]


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


def flip(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(bytes([DATA[0] ^ 1]))


def flip_secretly(path: Path) -> None:
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, flip, flip_secretly])
def test_damaged_afterwards(
    store: Downloads, server: Server, source: Source, place: Path, damage: Callable[[Path], None]
) -> None:
    path = store.get("debian:13", source)
    damage(path)
    now = hashlib.sha256(path.read_bytes()).hexdigest()
    change = f"{len(DATA)} bytes then, 1000 now" if damage is truncate else f"SHA-256 {CHECKSUM.hex} then, {now} now"
    day = time.strftime("%Y-%m-%d")
    text = f"image 'debian:13': {path} was changed or damaged since it was fetched on {day} ({change})"
    hint = "'pytest-kvm images pull debian:13' fetches it again"
    with pytest.raises(ImageUnavailable, match=re.escape(f"{text}\n  {hint}")):
        store.get("debian:13", source)
    with pytest.raises(ImageUnavailable, match=re.escape(f"{text}\n  {hint}")):
        store.verify("debian:13")
    [entry] = store.entries()
    assert entry.trouble == text
    assert len(server.asked) == 1
    assert store.pull("debian:13", source) is True
    assert store.get("debian:13", source).read_bytes() == DATA
    assert [entry.trouble for entry in store.entries()] == [""]


def test_touched_afterwards(store: Downloads, server: Server, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.get("debian:13", source)
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)
    assert [entry.trouble for entry in store.entries()] == [""]
    assert store.get("debian:13", source) == path
    monkeypatch.setattr(Checksum, "of_file", no_hashing)
    assert store.get("debian:13", source) == path
    assert len(server.asked) == 1


def test_file_without_a_record(store: Downloads, server: Server, source: Source, place: Path) -> None:
    path = store.get("debian:13", source)
    for record in (None, "", "[]", '{"checksum": 1}', '{"checksum": "x"}'):
        (place / "debian-13" / ".record.json").unlink()
        if record is not None:
            (place / "debian-13" / ".record.json").write_text(record)
        assert store.path("debian:13") is None
        assert store.get("debian:13", source) == store.path("debian:13") == path
    assert len(server.asked) == 1, "it is known by its content"


def test_file_that_is_gone(store: Downloads, server: Server, source: Source) -> None:
    store.get("debian:13", source).unlink()
    assert store.path("debian:13") is None
    assert store.get("debian:13", source).read_bytes() == DATA
    assert len(server.asked) == 2


def test_offline(store: Downloads, server: Server, source: Source, place: Path) -> None:
    offline = Downloads(place, offline=True)
    for verb in (offline.get, offline.pull):
        with pytest.raises(ImageUnavailable) as caught:
            verb("debian:13", source)
        assert str(caught.value) == (
            f"image 'debian:13' is not in {place}, and --kvm-offline forbids downloads\n"
            "  fetch it with 'pytest-kvm images pull debian:13', or run once without --kvm-offline"
        )
    assert not place.exists()
    path = store.get("debian:13", source)
    assert offline.get("debian:13", source) == path
    path.touch()
    assert offline.get("debian:13", source) == path
    (place / "debian-13" / ".record.json").unlink()
    assert offline.get("debian:13", source) == path
    other = Source(urls=source.urls, filename="disk.img", checksum_url="https://127.0.0.1:1/SUMS")
    with pytest.raises(ImageUnavailable, match="--kvm-offline forbids"):
        offline.get("debian:13", other)
    assert len(server.asked) == 1


def test_remove(store: Downloads, server: Server, source: Source, place: Path) -> None:
    assert store.remove("debian:13") == 0
    with store.get("debian:13", source).open("rb") as stream:
        assert store.remove("debian:13") == len(DATA)
        assert stream.read() == DATA
    assert nothing(store)
    with pytest.raises(ImageUnavailable) as caught:
        store.verify("debian:13")
    assert str(caught.value) == (
        f"image 'debian:13' is not in {place}\n  fetch it with 'pytest-kvm images pull debian:13'"
    )
    assert store.get("debian:13", source).read_bytes() == DATA


def test_part(store: Downloads, server: Server, source: Source) -> None:
    server.at("/disk.img", file(DATA, end=200_000))
    with pytest.raises(ImageUnavailable, match="before all of its 300000 bytes"):
        store.get("debian:13", source)
    [entry] = store.entries()
    assert (entry.name, entry.record, entry.path, entry.size) == ("debian-13", None, None, 0)
    assert entry.partial > 200_000
    assert time.time() - entry.time < 60
    assert store.remove(entry.name) == entry.partial
    assert nothing(store)


@pytest.mark.parametrize("name", ["..", ".", "../../up", "a/b", "/etc/passwd", ".record.json", "a\nb", "ü", "x" * 200])
def test_names_stay_inside(store: Downloads, source: Source, place: Path, name: str) -> None:
    path = store.get(name, source)
    assert path.parent.parent == place
    assert path.resolve() == path
    assert re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", path.parent.name)
    assert store.path(name) == path
    assert [entry.name for entry in store.entries()] == [name]
    assert store.remove(name) == len(DATA)
    assert os.listdir(place.parent) == ["downloads"]


def test_names_that_are_one_on_disk(store: Downloads, source: Source, place: Path) -> None:
    store.get("debian:13", source)
    for verb in (store.get, store.pull):
        with pytest.raises(SpecError) as caught:
            verb("debian-13", source)
        assert str(caught.value) == (
            f"images 'debian:13' and 'debian-13' would have the same folder, {place / 'debian-13'}:"
            " give one another name, or remove the former ('pytest-kvm images remove debian:13')"
        )
