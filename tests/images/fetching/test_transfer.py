"""Downloads that are broken off, and go on; and disks that have no room for them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.partial import Origin, Partial
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.web import download
from tests.images.fetching.downloading import ONCE, TWICE, fails, works
from tests.images.fetching.servers import CHECKSUM, DATA, Act, Handler, Server, chunked, file, hang, hang_up, status

OTHER = hashlib.shake_256(b"another disk").digest(len(DATA))
CUT = 200_000
PARTIAL = ["disk.img.partial", "disk.img.partial.json"]


def cut(server: Server, into: Path, data: bytes = DATA) -> str:
    """Let a download be broken off; return the address."""
    url = server.at("/disk.img", file(data, end=CUT))
    ended = "the connection was closed before all of its 300000 bytes were received"
    assert fails([url], into) == f"{url} cannot be fetched: {ended}"
    assert sorted(os.listdir(into.parent)) == PARTIAL
    assert Partial(into).size == CUT
    server.asked.clear()
    return url


def test_resumed(server: Server, into: Path) -> None:
    url = server.at("/disk.img", file(DATA, end=CUT), file(DATA))
    said: list[str] = []
    download([url], into, checksum=CHECKSUM, patience=TWICE, report=said.append)
    assert into.read_bytes() == DATA
    assert os.listdir(into.parent) == ["disk.img"]
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert server.asked[1][1]["If-Range"] == '"one"'
    assert said == [
        f"downloading {url} (0.3 MB)",
        f"{url} cannot be fetched: the connection was closed before all of its 300000 bytes were received;"
        " asking again in 0 s",
        f"downloading {url} (0.3 MB, 0.2 MB are here already)",
    ]


def test_resumed_next_time(server: Server, into: Path) -> None:
    url = cut(server, into)
    server.at("/disk.img", file(DATA))
    works([url], into)
    assert server.ranges == [f"bytes={CUT}-"]


@pytest.mark.parametrize(
    ("then", "silence", "reason"),
    [(hang_up, 10.0, "Connection reset by peer"), (hang, 0.3, "the server was silent for 0.3 s")],
)
def test_resumed_after_other_ends(server: Server, into: Path, then: Act, silence: float, reason: str) -> None:
    url = server.at("/disk.img", file(DATA, end=CUT, then=then))
    assert fails([url], into, patience=Patience(silence=silence, pauses=())) == f"{url} cannot be fetched: {reason}"
    server.at("/disk.img", file(DATA))
    there = Partial(into).size
    works([url], into)
    assert server.ranges == [None, f"bytes={there}-" if there else None]


def test_end_in_the_middle_of_a_chunk(server: Server, into: Path) -> None:
    def act(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n%b" % (len(DATA), DATA[:CUT]))

    url = server.at("/disk.img", act)
    assert fails([url], into) == f"{url} cannot be fetched: the connection was closed before the end was received"


@pytest.mark.parametrize("act", [file(DATA, ranges=False), file(DATA, tag='"two"')], ids=["no ranges", "changed"])
def test_server_that_does_not_go_on(server: Server, into: Path, act: Act) -> None:
    url = cut(server, into, OTHER)
    server.at("/disk.img", act)
    works([url], into)
    assert server.ranges == [f"bytes={CUT}-"]


def test_part_of_another_file(server: Server, into: Path) -> None:
    url = cut(server, into, OTHER)
    server.at("/disk.img", file(DATA))  # and says that it is the same
    said: list[str] = []
    download([url], into, checksum=CHECKSUM, patience=ONCE, report=said.append)
    assert into.read_bytes() == DATA
    assert server.ranges == [f"bytes={CUT}-", None]
    mixed = hashlib.sha256(OTHER[:CUT] + DATA[CUT:]).hexdigest()
    assert said[1] == (
        f"{url} is not what the publisher announces: expected SHA-256 {CHECKSUM.hex}, got {mixed};"
        " fetching it again from its beginning"
    )


def test_part_of_a_file_that_is_wrong(server: Server, into: Path) -> None:
    url = cut(server, into, OTHER)
    server.at("/disk.img", file(OTHER))
    assert "is not what the publisher announces" in fails([url], into)
    assert server.ranges == [f"bytes={CUT}-", None]
    assert os.listdir(into.parent) == []


def _elsewhere(handler: Handler) -> None:
    handler.head(206, ETag='"one"', Content_Length=10, Content_Range=f"bytes 0-9/{len(DATA)}")
    handler.wfile.write(DATA[:10])


def _longer(handler: Handler) -> None:
    handler.head(206, ETag='"one"', Content_Length=10, Content_Range=f"bytes {CUT}-{CUT + 9}/{len(DATA) + 1}")
    handler.wfile.write(DATA[:10])


@pytest.mark.parametrize("act", [status(416), _elsewhere, _longer], ids=["shorter", "elsewhere", "longer"])
def test_range_that_does_not_fit(server: Server, into: Path, act: Act) -> None:
    url = cut(server, into, OTHER)
    server.at("/disk.img", act, file(DATA))
    assert fails([url], into) == f"{url} cannot be fetched: the server does not continue at byte {CUT}"
    assert os.listdir(into.parent) == []
    works([url], into)
    assert server.ranges == [f"bytes={CUT}-", None]


def test_part_that_is_whole(server: Server, into: Path) -> None:
    url = cut(server, into)
    with Partial(into).append() as stream:  # and killed before it was put in its place
        stream.write(DATA[CUT:])
    works([url], into)
    assert server.asked == []


@pytest.mark.parametrize("memory", ["missing", "damaged", "another address", "no validator"])
def test_part_of_which_too_little_is_known(server: Server, into: Path, memory: str) -> None:
    url = cut(server, into)
    place = into.with_name(PARTIAL[1])
    match memory:
        case "missing":
            place.unlink()
        case "damaged":
            place.write_text('{"url":')
        case "another address":
            place.write_text(place.read_text().replace("/disk.img", "/other.img"))
        case _:
            Partial(into).begin(Origin(url, "", len(DATA)))
            Partial(into).path.write_bytes(OTHER[:CUT])
    server.at("/disk.img", file(DATA))
    works([url], into)
    assert server.ranges == [None]


def test_weak_tag(server: Server, into: Path) -> None:
    day = "Tue, 24 Nov 2026 14:00:00 GMT"

    def act(handler: Handler) -> None:
        handler.head(200, ETag='W/"one"', Last_Modified=day, Content_Length=len(DATA))
        handler.wfile.write(DATA[:CUT])

    url = server.at("/disk.img", act, file(DATA, tag=day))
    works([url], into, patience=TWICE)
    assert server.ranges == [None, f"bytes={CUT}-"]


def test_shaky_line(server: Server, into: Path) -> None:
    size = 5 << 20
    data = hashlib.shake_256(b"large").digest(5 * size)
    url = server.at("/disk.img", *(file(data, end=(turn + 1) * size) for turn in range(5)))
    download([url], into, checksum=Checksum("sha256", hashlib.sha256(data).hexdigest()), patience=TWICE)
    assert server.ranges == [None, *(f"bytes={turn * size}-" for turn in range(1, 5))]


def test_no_room(server: Server, into: Path) -> None:
    url = server.at("/disk.img", file(DATA))
    with pytest.raises(ImageUnavailable) as caught:
        download([url], into, checksum=CHECKSUM, room=lambda _: len(DATA) - 60_000)
    assert str(caught.value) == (
        f"{url} does not fit into {into.parent}: it needs 0.3 MB, 0.2 MB are free\n"
        "  free some, or set PYTEST_KVM_CACHE to a directory on a larger disk"
    )
    assert os.listdir(into.parent) == []
    works([url], into)


@pytest.mark.parametrize("act", [file(DATA), file(DATA, ranges=False)], ids=["resumed", "anew"])
def test_room_that_a_part_has_already(server: Server, into: Path, act: Act) -> None:
    url = cut(server, into)
    server.at("/disk.img", act)
    download([url], into, checksum=CHECKSUM, room=lambda _: len(DATA) - CUT)
    assert into.read_bytes() == DATA


CHILD = """
import os, resource, sys
from pathlib import Path
from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.web import download
url, into, checksum, limit = sys.argv[1], Path(sys.argv[2]), Checksum.parse(sys.argv[3]), int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    download([url], into, checksum=checksum)
except ImageUnavailable as error:
    print(error)
print(os.listdir(into.parent))
"""
TMPFS = 'mount -t tmpfs -o size=200k none "$0" && exec "$@"'


@pytest.mark.parametrize("disk", ["full", "limited"])
def test_write_that_fails(server: Server, into: Path, disk: str) -> None:
    into.parent.mkdir()
    command = [sys.executable, "-c", CHILD, server.at("/disk.img", chunked(DATA)), str(into), str(CHECKSUM)]
    if disk == "full":
        private = ["unshare", "-rm", "sh", "-c", TMPFS, str(into.parent)]
        if shutil.which("unshare") is None or subprocess.run([*private, "true"], check=False).returncode != 0:
            pytest.skip("no private mounts here")
        command, reason = [*private, *command, "0"], "No space left on device"
    else:
        command, reason = [*command, "200000"], "File too large"
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == (
        f"{server.url('/disk.img')} cannot be written to {into.parent}: {reason}\n"
        "  free some, or set PYTEST_KVM_CACHE to a directory on a larger disk\n[]\n"
    )
    works([server.url("/disk.img")], into)


def test_directory_that_cannot_be(server: Server, into: Path) -> None:
    into.parent.write_bytes(b"")
    url = server.at("/disk.img", file(DATA))
    with pytest.raises(ImageUnavailable) as caught:
        download([url, url], into, checksum=CHECKSUM)
    assert str(caught.value) == (
        f"{url} cannot be written to {into.parent}: Not a directory\n"
        "  set PYTEST_KVM_CACHE to a directory that you may write"
    )
