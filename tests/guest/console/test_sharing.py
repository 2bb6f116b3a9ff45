"""The console for others beside the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.guest.console import sharing
from pytest_kvm.guest.console.sharing import SharedConsole
from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.waiting import Deadline
from tests.guest.console.wires import Wire, laid


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with laid(tmp_path) as made:
        yield made


@pytest.fixture
def shared(wire: Wire) -> Iterator[SharedConsole]:
    with make_run_dir() as folder, closing(SharedConsole(wire.port, folder / "attach", io=wire.io)) as made:
        yield made


@contextmanager
def connect(shared: SharedConsole) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(shared.path))
        yield client


def read(client: socket.socket, size: int) -> bytes:
    """Return so much, or all until the end."""
    found = b""
    while len(found) < size and (data := client.recv(size - len(found))):
        found += data
    return found


def test_all_see_it_and_may_type(wire: Wire, shared: SharedConsole) -> None:
    wire.print(b"login: ")
    with connect(shared) as one, connect(shared) as other:
        assert (read(one, 7), read(other, 7)) == (b"login: ", b"login: ")
        one.sendall(b"ro")
        assert wire.guest.recv(2, socket.MSG_WAITALL) == b"ro"
        other.sendall(b"ot\r\x03")
        assert wire.guest.recv(4, socket.MSG_WAITALL) == b"ot\r\x03"
        wire.print(b"\xff# ")
        assert (read(one, 3), read(other, 3)) == (b"\xff# ", b"\xff# ")
    # The test sees everything, too.
    assert wire.port.read(100, Deadline(10)) == b"login: \xff# "


def test_one_that_goes_away(wire: Wire, shared: SharedConsole) -> None:
    with connect(shared) as one, connect(shared) as other:
        wire.print(b"a")
        assert (read(one, 1), read(other, 1)) == (b"a", b"a")
        one.close()
        wire.print(b"b" * (1 << 20))
        assert read(other, 1 << 20) == b"b" * (1 << 20)


def test_one_that_does_not_read(wire: Wire, shared: SharedConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_BEHIND", 1 << 20)
    with connect(shared) as one, connect(shared) as other:
        wire.print(b"a")
        assert (read(one, 1), read(other, 1)) == (b"a", b"a")
        for _ in range(8):
            wire.print(b"b" * (1 << 20))
            assert read(other, 1 << 20) == b"b" * (1 << 20)
        assert len(read(one, 8 << 20)) < 8 << 20  # and then its end


def test_the_machine_goes_off(wire: Wire, shared: SharedConsole) -> None:
    with connect(shared) as one:
        wire.print(b"a")
        assert read(one, 1) == b"a"
        wire.guest.sendall(b"last words")
        wire.guest.close()
        assert read(one, 100) == b"last words"
    with connect(shared) as late:
        assert read(late, 100) == b"alast words"


def test_closing(wire: Wire, shared: SharedConsole) -> None:
    with connect(shared) as one:
        wire.print(b"a")
        assert read(one, 1) == b"a"
        shared.close()
        assert read(one, 1) == b""
        with pytest.raises(FileNotFoundError), connect(shared):
            pass
    wire.print(b"goes on")
    shared.close()


def test_a_path_that_is_too_long(wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="AF_UNIX allows 107"):
        SharedConsole(wire.port, tmp_path / ("long" * 30), io=wire.io)
