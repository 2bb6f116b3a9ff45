"""One lane of the guest's shell: four virtio-serial ports on which one command runs after the other.

The other end is images/builtin/rootfs/lib/kvm/lane; the protocol is described there.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.guest.shell.stream import Stream
from pytest_kvm.qemu.sockets import connect
from pytest_kvm.waiting import Watch

PORTS = ("ctl", "in", "out", "err")
_CHUNK = 1 << 20


class Job:
    """A command on its way: ``status`` is None until the guest has answered and all output is here."""

    def __init__(
        self, script: bytes, *, stdin: bool, watch: Watch, end: str | None = None, keep_output: bool = True
    ) -> None:
        self.script = script
        self.watch = watch
        self.stdin = stdin
        self.end = end or f"end-{secrets.token_hex(12)}"
        self.out = Stream(self.end.encode() + b"\n", watch, keep=keep_output)
        self.err = Stream(self.end.encode() + b"\n", watch, keep=keep_output)
        # Where it runs, and as which command there; None until it has been given a lane.
        self.lane: Lane | None = None
        self.number = 0
        self.task: asyncio.Task[None] | None = None
        self.status: int | None = None
        # Why there will be no status: the shell was lost, or would not take it.
        self.lost: str | None = None
        self.refusal: Exception | None = None
        # What goes to standard input, each with a future for its sender; None is the end.
        self.input: asyncio.Queue[tuple[bytes | None, asyncio.Future[None]]] = asyncio.Queue()
        self.writer: asyncio.Task[None] | None = None

    def give_up(self, reason: str, error: Exception | None = None) -> None:
        """Nothing will come of it any more; the first reason stays."""
        with self.watch:
            if self.ended:
                return
            self.lost, self.refusal = reason, error
            self.out.abandon()
            self.err.abandon()
            self.watch.notify()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status is not None or self.lost is not None

    def post(self, data: bytes | None) -> None:
        """Put data into the command's standard input, or end it (None); dropped when it takes no more."""
        if not self.ended:
            self.input.put_nowait((data, asyncio.get_running_loop().create_future()))

    async def send(self, data: bytes) -> None:
        """Put data into the command's standard input and wait for it to go; raises BrokenPipeError if it does not."""
        if self.ended:
            raise BrokenPipeError(errno.EPIPE, "the command has ended")
        sent = asyncio.get_running_loop().create_future()
        self.input.put_nowait((data, sent))
        await sent


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
        self.job: Job | None = None
        self._folder = folder
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, socket.socket] = {}
        self._lines = b""
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

    def abandon(self, reason: str) -> None:
        """Let a command that cannot be ended keep the lane."""
        self.suspect = True
        self._drop(reason)

    def _drop(self, reason: str) -> None:
        job, self.job = self.job, None
        if job is not None:
            self._close_input(job)
            job.give_up(reason)
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
        try:
            await self._loop.sock_sendall(self._sockets["ctl"], header.encode() + job.script)
        except (OSError, KeyError):
            self.lose("the connection to QEMU broke")
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
                    _tell(sent, BrokenPipeError(errno.EPIPE, "the command has ended"))
                    if isinstance(error, asyncio.CancelledError):
                        raise
                else:
                    _tell(sent, None)

    def _receive(self, port: str, connection: socket.socket) -> bool:
        """Take what has arrived; return whether there was anything."""
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(connection)
            return False
        if port == "ctl":
            *lines, self._lines = (self._lines + data).split(b"\n")
            for line in lines:
                self._answered(line.decode(errors="backslashreplace").split())
        elif self.job is not None:
            (self.job.out if port == "out" else self.job.err).feed(data)
        # Else it is the late output of a job left behind, which belongs to no command.
        self._look()
        return True

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
                elif status.isdigit():
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
        self._resolve("done")

    def _resolve(self, answer: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _close_input(self, job: Job) -> None:
        if job.writer is not None:
            job.writer.cancel()
            job.writer = None
        while not job.input.empty():
            _tell(job.input.get_nowait()[1], BrokenPipeError(errno.EPIPE, "the command has ended"))


def _tell(sender: asyncio.Future[None], error: Exception | None) -> None:
    if sender.done():
        return
    sender.add_done_callback(lambda future: future.exception())  # nobody need be waiting for it
    if error is None:
        sender.set_result(None)
    else:
        sender.set_exception(error)
