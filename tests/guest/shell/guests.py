"""The host's end of the guest's shell, with sockets in the place of QEMU's ports and a test in that of the guest."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_kvm.guest.shell.shell import Shell, first_ports
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Watch

LIMIT = 20.0
HEADER = re.compile(rb"\n(?P<epoch>\S+) (?P<id>\d+) (?P<stdin>[+-]) (?P<size>\d+) (?P<end>\S+)\n")


class Guest:
    """The guest's end: a socket for each port, by its name (``control``, ``0.ctl`` …)."""

    def __init__(self, shell: Shell, ports: dict[str, socket.socket], trouble: list[object]) -> None:
        self.shell = shell
        self.ports = ports
        self.trouble = trouble

    def say(self, port: str, data: bytes) -> None:
        """Write to a port; the host must read it in time."""
        self.ports[port].sendall(data)

    def ready(self, epoch: str = "epoch") -> None:
        """Say that the lane serves commands; what was said before may have been half a line."""
        self.say("0.ctl", f"\nready {epoch}\n".encode())

    def hear(self, port: str, size: int) -> bytes:
        """Return what the host says on a port, at most so many bytes; raises EOFError when it says no more."""
        data = self.ports[port].recv(size)
        if not data:
            raise EOFError(port)
        return data

    def deafen(self, port: str) -> None:
        """Hear nothing more on a port."""
        self.ports[port].shutdown(socket.SHUT_RD)

    def request(self) -> tuple[bytes, bytes, bytes]:
        """Return the next command's number, script and end mark."""
        data = b""
        while (header := HEADER.search(data)) is None or len(data) < header.end() + int(header["size"]):
            data += self.hear("0.ctl", 1 << 16)
        return header["id"], data[header.end() :], header["end"]

    def answer(self, out: bytes = b"", err: bytes = b"", status: bytes = b"0") -> bytes:
        """Do as a guest does that has run the next command; return its script."""
        number, script, end = self.request()
        self.say("0.out", out + end + b"\n")
        self.say("0.err", err + end + b"\n")
        self.say("0.ctl", number + b" " + status + b"\n")
        return script


@contextmanager
def guest(folder: Path, io: IOThread) -> Iterator[Guest]:
    """Yield a guest's end; ``trouble`` is what went wrong in the I/O thread, and must be empty at the end."""
    trouble: list[object] = []
    with ExitStack() as stack:
        ours, theirs = {}, {}
        for name in first_ports():
            if not name.endswith(".in"):
                ours[name], theirs[name] = socket.socketpair()
                ours[name].setblocking(False)
                theirs[name].settimeout(LIMIT)
                stack.enter_context(theirs[name])
        io.call(io.loop.set_exception_handler, lambda _, context: trouble.append(context))
        shell = Shell(name="vm", folder=folder, io=io, watch=Watch(), internet=False, user="root")
        shell.attach(ours)
        stack.callback(shell.close)
        yield Guest(shell, theirs, trouble)
    io.call(lambda: None)
    assert trouble == []


def taken(port: socket.socket) -> None:
    """Wait until the other end has read everything."""
    import fcntl
    import struct
    import termios

    end = time.monotonic() + LIMIT
    while struct.unpack("i", fcntl.ioctl(port, termios.TIOCOUTQ, b"\0" * 4))[0]:
        assert time.monotonic() < end, "nobody reads"
        time.sleep(0.001)
