"""A console's wire without a guest: what the test writes is what the guest prints."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline, Watch


class Wire(NamedTuple):
    port: SerialPort
    guest: socket.socket
    watch: Watch
    io: IOThread

    def print(self, *pieces: bytes) -> None:
        """Let the guest print; each piece arrives on its own."""
        for piece in pieces:
            before = self.port.received
            self.guest.sendall(piece)
            assert self.watch.wait_only(lambda: self.port.received >= before + len(piece), Deadline(10))  # noqa: B023

    def log(self) -> bytes:
        return self.port.log_path.read_bytes()


@contextmanager
def laid(folder: Path) -> Iterator[Wire]:
    with ExitStack() as stack:
        io = IOThread()
        stack.callback(io.close)
        watch = Watch()
        port = SerialPort(io=io, watch=watch, log_path=folder / "console.log")
        stack.callback(port.close)
        assert not port.open
        yield Wire(port, stack.enter_context(plugged(port)), watch, io)


@contextmanager
def plugged(port: SerialPort) -> Iterator[socket.socket]:
    """Yield the guest's end of a wire that is plugged into this port."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        port.attach(ours)
        yield theirs
