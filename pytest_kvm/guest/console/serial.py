"""The wire of a serial console: always drained and logged, whether or not anybody reads."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.visible import visible
from pytest_kvm.waiting import Deadline, Watch

# Unread output that is kept for the test; beyond it the oldest goes (the log still has it).
UNREAD_LIMIT = 16 << 20
LOG_LIMIT = 64 << 20
_TAIL = 16 << 10


class SerialPort:
    """The host's end of the serial console, or of the firmware's, over all starts of a machine.

    The log at ``log_path`` has the host's time in front of each line.
    """

    def __init__(self, *, io: IOThread, watch: Watch, log_path: Path) -> None:
        self.log_path = log_path
        self._io = io
        self._watch = watch
        self._unread = bytearray()
        self._received = 0
        self._tail = b""
        self._log = log_path.open("ab", buffering=0)
        self._logged = 0
        self._at_line_start = True
        self._connection: socket.socket | None = None
        # Gets all that arrives, before anybody waits for it.
        self.listener: Callable[[bytes], None] | None = None
        # What somebody waits for, until it comes.
        self._mark = b""
        # They are given, in the I/O thread, what arrives, and b"" when the machine goes off.
        self._followers: list[Callable[[bytes], None]] = []
        # Whether more can come.
        self.open = False

    def attach(self, connection: socket.socket) -> None:
        """Take over the connection to a QEMU that is about to start."""
        self._io.call(self._attach, connection)

    def _attach(self, connection: socket.socket) -> None:
        self._detach()
        self._connection = connection
        self.open = True
        asyncio.get_running_loop().add_reader(connection, self._receive, connection)

    def replay(self, transcript: bytes, log: bytes) -> None:
        """Begin with what a machine printed before this one was cloned from it, as if it arrived now.

        ``log`` is its log, with the times of then.
        """
        with self._watch:
            self._take(transcript)
            with contextlib.suppress(OSError):
                self._log.write(log)
            self._logged += len(log)
            self._at_line_start = not log or log.endswith(b"\n")
            self._watch.notify()

    def forget(self) -> None:
        """Drop what was not read: the machine goes back to an earlier state."""
        with self._watch:
            self._unread.clear()

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        self._unread += data
        if len(self._unread) > UNREAD_LIMIT:
            del self._unread[: len(self._unread) - UNREAD_LIMIT]
        if self._mark and self._mark in self._tail[-len(self._mark) :] + data:
            self._mark = b""
        self._tail = (self._tail + data)[-_TAIL:]
        if self.listener is not None:
            self.listener(data)

    def _detach(self) -> None:
        if self._connection is not None:
            self._io.loop.remove_reader(self._connection)
            self._connection.close()
            self._connection = None

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        with self._watch:
            if data:
                self._take(data)
                self._write_log(data)
            else:
                self._detach()
                self.open = False
            for follower in self._followers:
                follower(data)
            self._watch.notify()

    def limit(self, seconds: float) -> float:
        """Return how long to wait for this guest, when somebody says so, or nobody does (waiting.Usual)."""
        return self._watch.limit(seconds)

    def drain(self) -> None:
        """Take, in the I/O thread, what is waiting to be received: the news that follows shall not overtake it."""
        while self._connection is not None:
            received = self._received
            self._receive(self._connection)
            if self._received == received:
                return

    def _write_log(self, data: bytes) -> None:
        if self._logged > LOG_LIMIT:
            return
        # Without room for the log the machine goes on; what it prints is still read, and in the tail.
        with contextlib.suppress(OSError):
            self._append(data)

    def _append(self, data: bytes) -> None:
        stamp = datetime.datetime.now().strftime("%H:%M:%S.%f ").encode()
        lines = data.splitlines(keepends=True)
        starts = [self._at_line_start, *(line.endswith(b"\n") for line in lines)]
        stamped = b"".join((stamp if start else b"") + line for start, line in zip(starts, lines, strict=False))
        self._log.write(stamped)
        self._at_line_start = starts[-1]
        self._logged += len(stamped)
        if self._logged > LOG_LIMIT:
            self._log.write(f"\n[the log ends here: {LOG_LIMIT} bytes]\n".encode())

    def read(self, size: int, deadline: Deadline) -> bytes | None:
        """Return up to ``size`` unread bytes, b"" when no more can come, None when the deadline came first.

        Raises the machine's failure, if there is one, once everything has been read.
        """
        with self._watch:
            if not self._watch.wait_for(lambda: bool(self._unread) or not self.open, deadline):
                return None
            data = bytes(self._unread[:size])
            del self._unread[:size]
            return data

    def follow(self, follower: Callable[[bytes], None]) -> None:
        """Give ``follower`` the last output that there was, now, then all that arrives, and b"" when it is all.

        In the I/O thread.
        """
        if self._tail:
            follower(self._tail)
        if not self.open:
            follower(b"")
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[bytes], None]) -> None:
        """Give a follower nothing more. In the I/O thread."""
        self._followers.remove(follower)

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Type ``data``, which waits when the guest does not read what was typed before.

        Raises BrokenPipeError when the machine is off, TimeoutError when the deadline comes, the machine's failure.
        """
        self._io.run_watched(self.write_async(data), self._watch, deadline)

    async def write_async(self, data: bytes) -> None:
        """Do what ``write`` does, in the I/O thread."""
        if self._connection is None:
            raise BrokenPipeError("the machine is off: its console takes no input")
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines that the guest printed, read or not, without what a terminal would obey."""
        return "\n".join(visible(line).rstrip() for line in self.shown().splitlines()[-lines:])

    def shown(self) -> str:
        """Return the end of what the guest printed, read or not, as it came."""
        with self._watch:
            return self._tail.decode(errors="backslashreplace")

    @contextlib.contextmanager
    def marked(self, mark: bytes) -> Iterator[Callable[[], bool]]:
        """Yield what tells whether the kernel's message with this mark has come; nobody else gets to read it."""
        self._mark = mark
        yield lambda: not self._mark
        with self._watch:
            self._mark = b""
            message = re.compile(rb"(\[ *\d+\.\d+\](\[[^\]\n]*\])? )?" + re.escape(mark) + rb"\r?\n?")
            self._unread = bytearray(message.sub(b"", self._unread, count=1))
            self._tail = message.sub(b"", self._tail, count=1)

    @property
    def all_logged(self) -> bool:
        """Whether the log has everything: there is a limit to it."""
        return self._logged <= LOG_LIMIT

    def last(self) -> bytes:
        """Return the same as it is on the wire."""
        with self._watch:
            return self._tail

    @property
    def received(self) -> int:
        """How many bytes have arrived since the machine was made."""
        return self._received

    def since(self, position: int) -> bytes:
        """Return what arrived after the first ``position`` bytes and was not read."""
        with self._watch:
            start = position - (self._received - len(self._unread))
            return bytes(self._unread[max(0, start) :])

    def close(self) -> None:
        """Close connection and log."""
        self._io.call(self._detach)
        self._log.close()
