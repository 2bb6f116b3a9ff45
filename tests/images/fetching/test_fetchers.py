"""Several processes and one store; processes that are killed; stores that cannot be written."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.downloads import Downloads
from pytest_kvm.images.fetching.records import Place
from pytest_kvm.images.fetching.source import Source
from tests.images.fetching.servers import CHECKSUM, DATA, Handler, Server, file, hang

CUT = 200_000
CHILD = """
import sys
from contextlib import contextmanager
from pathlib import Path
from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching import transfer
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.downloads import Downloads
from pytest_kvm.images.fetching.source import Source

def say(line):
    print(line, flush=True)

@contextmanager
def bar(*_, **__):
    yield lambda size: say(f"have {size}")

transfer.download_bar = bar
directory, url, checksum = sys.argv[1:]
source = Source(urls=(url,), filename="disk.img", checksum=Checksum.parse(checksum))
try:
    store = Downloads(Path(directory), report=say)
    path = store.get("debian:13", source)
    say(path)
    assert store.verify("debian:13") == path
except ImageUnavailable as error:
    say(error)
"""


def command(place: Path, source: Source) -> list[str]:
    return [sys.executable, "-c", CHILD, str(place), source.urls[0], str(CHECKSUM)]


@contextmanager
def fetching(place: Path, source: Source) -> Iterator[subprocess.Popen[str]]:
    """Let another process get the image."""
    with subprocess.Popen(command(place, source), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], until: str) -> list[str]:
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        found.append(line.rstrip("\n"))
        if found[-1].startswith(until):
            return found
    raise AssertionError(f"it never said {until!r}, but {found}")


def test_two_processes(server: Server, source: Source, place: Path) -> None:
    gate = threading.Event()

    def rest(handler: Handler) -> None:
        gate.wait(30)
        handler.wfile.write(DATA[CUT:])

    server.at("/disk.img", file(DATA, end=CUT, then=rest))
    with fetching(place, source) as first, fetching(place, source) as second:
        both = {process: lines(process, "") for process in (first, second)}
        loser = next(process for process, said in both.items() if said[0].startswith("waiting"))
        winner = first if loser is second else second
        assert both[loser] == ["waiting for another process that fetches image 'debian:13' (1800 s at most)"]
        assert both[winner] == [f"downloading {source.urls[0]} (0.3 MB)"]
        assert Downloads(place).path("debian:13") is None
        gate.set()
        path = str(place / "debian-13" / "disk.img")
        assert lines(loser, "/") == [path]
        assert lines(winner, "/")[-1] == path
    assert len(server.asked) == 1
    assert Path(path).read_bytes() == DATA


def test_killed(server: Server, source: Source, place: Path) -> None:
    server.at("/disk.img", file(DATA, end=CUT, then=hang))
    with fetching(place, source) as process:
        lines(process, "have 196608")  # whole pieces: the last one is still on its way
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = Downloads(place)
    assert store.path("debian:13") is None
    [entry] = store.entries()
    assert (entry.record, entry.size) == (None, 0)
    server.at("/disk.img", file(DATA))
    assert store.get("debian:13", source).read_bytes() == DATA
    assert server.ranges == [None, "bytes=196608-"]
    assert [(entry.partial, entry.trouble) for entry in store.entries()] == [(0, "")]


def test_killed_before_it_is_remembered(
    server: Server, source: Source, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Downloads(place)
    store.get("debian:13", source)
    server.at("/disk.img", file(DATA[::-1]))
    newer = replace(source, checksum=Checksum("sha256", hashlib.sha256(DATA[::-1]).hexdigest()))
    with monkeypatch.context() as patch:
        patch.setattr(Place, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.pull("debian:13", newer)
    assert store.path("debian:13") is None, "nobody takes it for the old one"
    assert store.get("debian:13", newer).read_bytes() == DATA[::-1]
    assert len(server.asked) == 2, "it is known by its content"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_waiting_has_an_end(source: Source, place: Path) -> None:
    said: list[str] = []
    store = Downloads(place, report=said.append, wait=0.1)
    place.mkdir()
    lock = place / ".debian-13.lock"
    with filelock.FileLock(lock):
        errors = []
        # In a thread of its own: filelock knows that one thread would wait for itself.
        thread = threading.Thread(target=lambda: errors.append(failure(store, source)))
        thread.start()
        thread.join()
    assert errors == [
        "image 'debian:13' is in use: another process has been fetching it for 0.1 s\n"
        f"  try again when it has ended; it holds the lock {lock}"
    ]
    assert said == ["waiting for another process that fetches image 'debian:13' (0.1 s at most)"]
    assert store.get("debian:13", source).read_bytes() == DATA


def failure(store: Downloads, source: Source) -> str:
    with pytest.raises(ImageUnavailable) as caught:
        store.get("debian:13", source)
    return str(caught.value)


def test_removing_what_is_being_fetched(source: Source, place: Path) -> None:
    store = Downloads(place)
    store.get("debian:13", source)
    lock = place / ".debian-13.lock"
    with filelock.FileLock(lock), pytest.raises(ImageUnavailable) as caught:
        store.remove("debian:13")
    assert str(caught.value) == (
        "image 'debian:13' is in use: another process has been fetching it\n"
        f"  try again when it has ended; it holds the lock {lock}"
    )
    assert store.remove("debian:13") == len(DATA)


def test_directory_that_cannot_be(source: Source, place: Path) -> None:
    place.write_bytes(b"")
    store = Downloads(place)
    assert failure(store, source) == (
        f"image 'debian:13' cannot be kept in {place}: Not a directory\n"
        "  set PYTEST_KVM_CACHE to a directory that you may write, with room for it"
    )
    with pytest.raises(ImageUnavailable) as caught:
        store.entries()
    assert str(caught.value) == f"the images in {place} cannot be listed: Not a directory"


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def test_read_only_store(source: Source, place: Path) -> None:
    place.mkdir()
    private = ["unshare", "-rm", "sh", "-c", READ_ONLY, str(place)]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], check=False).returncode != 0:
        pytest.skip("no private mounts here")

    def answer() -> str:
        done = subprocess.run([*private, *command(place, source)], capture_output=True, text=True, check=True)
        return done.stdout

    assert answer() == (
        f"image 'debian:13' cannot be kept in {place}: Read-only file system\n"
        "  set PYTEST_KVM_CACHE to a directory that you may write, with room for it\n"
    )
    path = Downloads(place).get("debian:13", source)
    assert answer() == f"{path}\n"
    path.touch()
    assert answer() == f"{path}\n", "it is read each time"
    path.write_bytes(b"x")
    assert answer().startswith(f"image 'debian:13': {path} was changed or damaged since it was fetched")
