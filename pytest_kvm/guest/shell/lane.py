"""One lane of the guest's shell: four virtio-serial ports on which one command runs after the other.

The other end is images/builtin/rootfs/lib/kvm/lane; the protocol is described there.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.guest.lines import Lines
from pytest_kvm.guest.shell.job import Job, tell
from pytest_kvm.guest.shell.stream import Stream
from pytest_kvm.qemu.sockets import connect
from pytest_kvm.waiting import Watch

PORTS = ("ctl", "in", "out", "err")
_CHUNK = 1 << 20
# What is lost with QEMU, whose end is about to be known.
BROKEN = "the connection to QEMU broke"
# Of what comes on ctl, each line is looked at, and no line has more than a word and a random UUID.
_LINES_CHUNK = 4 << 10
_LONGEST_LINE = 100
_STATUS = re.compile("[0-9]{1,3}")


@dataclass(frozen=True)
class SavedLane:
    """A lane as it was when the machine's state was saved.

    ``end`` is the mark of a command in flight, or "". What had come of it by then will not come again: its ``status``,
    and the end of ``out`` or ``err``.
    """

    number: int
    epoch: str
    count: int
    end: str = ""
    status: int | None = None
    out: bool = False
    err: bool = False


class Lane:
    """The host's end of a lane; everything here runs in the I/O thread."""

    def __init__(self, number: int, *, folder: Path, watch: Watch) -> None:
        self.number = number
        self.epoch = ""
        # A job left behind in the guest holds one of the ports.
        self.suspect = False
        # The guest waits for the rest of a script that was cut off: nothing else can be said to it.
        self.cut = False
        self._sending = False
        self.job: Job | None = None
        self._folder = folder
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, socket.socket] = {}
        self._lines = Lines(_LONGEST_LINE)
        self._status: int | None = None
        self._id = 0
        self._answer: asyncio.Future[str] | None = None
        self.ready = asyncio.Event()

    def attach(self, port: str, connection: socket.socket) -> None:
        """Take over the connection to one of the ports."""
        self._sockets[port] = connection
        self._loop.add_reader(connection, self._receive, port, connection)

    def saved(self) -> SavedLane:
        """Return what a clone of the machine, which has stopped, needs to know about the lane."""
        for port, connection in list(self._sockets.items()):
            while self._receive(port, connection):
                pass
        job = self.job
        if job is None:
            return SavedLane(self.number, self.epoch, self._id)
        return SavedLane(self.number, self.epoch, self._id, job.end, self._status, job.out.complete, job.err.complete)

    def restore(self, saved: SavedLane) -> None:
        """The guest's end goes on where it was when the machine's state was saved."""
        self.epoch, self._id, self._status = saved.epoch, saved.count, saved.status
        if saved.epoch:
            self.ready.set()
        if saved.end:
            # Nobody waits for it, but the lane is taken until it ends.
            self.job = Job(b"", stdin=False, watch=self._watch, end=saved.end, keep_output=False)
            self.job.number = saved.count
            self.job.out.complete, self.job.err.complete = saved.out, saved.err

    def close(self) -> None:
        """Close the connections; the command in flight is lost."""
        for connection in self._sockets.values():
            self._loop.remove_reader(connection)
            connection.close()
        self._sockets.clear()
        self.lose("the machine went off")

    def lose(self, reason: str) -> None:
        """The guest's end is gone: so is the command that was running in it."""
        self.ready.clear()
        self.epoch = ""
        self._drop(reason)
        self.cut = False

    def abandon(self, reason: str) -> None:
        """Let a command that cannot be ended keep the lane."""
        self.suspect = True
        self._drop(reason)

    def _drop(self, reason: str) -> None:
        job, self.job = self.job, None
        if job is not None:
            self._close_input(job)
            job.give_up(reason)
            if self._sending and job.task is not None:
                job.task.cancel()
                self.cut = True
        self._resolve("lost")

    async def run(self, job: Job) -> bool:
        """Run the job; return False if it did not run because the lane is busy with somebody left behind."""
        self.job = job
        job.lane = self
        self._id += 1
        job.number = self._id
        self._status = None
        self._answer = self._loop.create_future()
        if job.stdin:
            job.writer = self._loop.create_task(self._write_input(job, connect(self._folder / f"{self.number}.in")))
        flag = "+" if job.stdin else "-"
        # It begins a line whatever a predecessor of the lane was sent and did not read.
        header = f"\n{self.epoch} {self._id} {flag} {len(job.script)} {job.end}\n"
        self._sending = True
        try:
            await self._loop.sock_sendall(self._sockets["ctl"], header.encode() + job.script)
        except (OSError, KeyError):
            self.lose(BROKEN)
        finally:
            self._sending = False
        if await self._answer == "busy":
            self.job = None
            self.suspect = True
            self._close_input(job)
            return False
        return True

    async def _write_input(self, job: Job, connection: socket.socket) -> None:
        """Carry standard input; cancelled when the command has ended, since it need not read everything."""
        with connection:
            # The empty line ends what an earlier command may have left unread.
            await self._loop.sock_sendall(connection, f"\n{self._id}\n".encode())
            while True:
                data, sent = await job.input.get()
                try:
                    if data is None:
                        # QEMU passes the end on and closes its side; ours must stay, or what is in flight is lost.
                        connection.shutdown(socket.SHUT_WR)
                    else:
                        await self._loop.sock_sendall(connection, data)
                except (OSError, asyncio.CancelledError) as error:
                    tell(sent, BrokenPipeError(errno.EPIPE, "the command has ended"))
                    if isinstance(error, asyncio.CancelledError):
                        raise
                else:
                    tell(sent, None)

    def _receive(self, port: str, connection: socket.socket) -> bool:
        """Take what has arrived; return whether there was anything."""
        try:
            data = connection.recv(_LINES_CHUNK if port == "ctl" else _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(connection)
            return False
        if port == "ctl":
            for line in self._lines.feed(data):
                self._answered((line or b"").decode(errors="backslashreplace").split())
        elif self.job is not None:
            stream = self.job.out if port == "out" else self.job.err
            stream.feed(data)
            if stream.full:
                self._pause(port, connection, stream)
        # Else it is the late output of a job left behind, which belongs to no command.
        self._look()
        return True

    def _pause(self, port: str, connection: socket.socket, stream: Stream) -> None:
        """Let the command wait for its reader."""

        def go_on() -> None:
            if self._sockets.get(port) is connection:
                self._loop.add_reader(connection, self._receive, port, connection)

        def room() -> None:
            # Who reads may do so after the session has ended.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(go_on)

        self._loop.remove_reader(connection)
        stream.when_room(room)

    def _answered(self, words: list[str]) -> None:
        match words:
            case ["ready", epoch]:
                self.lose("the shell that ran it was killed")
                self.epoch = epoch
                self.ready.set()
                with self._watch:
                    self._watch.notify()
            case [number, status] if number == str(self._id):
                if status == "busy":
                    self._resolve("busy")
                elif _STATUS.fullmatch(status):
                    self._status = int(status)

    def _look(self) -> None:
        job = self.job
        if job is None or self._status is None or not (job.out.complete and job.err.complete):
            return
        self.job = None
        self._close_input(job)
        with self._watch:
            job.status = self._status
            self._watch.notify()
        job.tell_end()
        self._resolve("done")

    def _resolve(self, answer: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _close_input(self, job: Job) -> None:
        if job.writer is not None:
            job.writer.cancel()
            job.writer = None
        while not job.input.empty():
            tell(job.input.get_nowait()[1], BrokenPipeError(errno.EPIPE, "the command has ended"))
