"""A command for the guest's shell: its script, what goes to its standard input, and what comes of it."""

from __future__ import annotations

import asyncio
import errno
import secrets
from typing import TYPE_CHECKING

from pytest_kvm.guest.record import Ended
from pytest_kvm.guest.shell.stream import Stream
from pytest_kvm.waiting import Watch

if TYPE_CHECKING:
    from pytest_kvm.guest.shell.lane import Lane


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
        # Called in the I/O thread when it has ended.
        self.on_end: Ended | None = None

    def give_up(self, reason: str, error: Exception | None = None) -> None:
        """Nothing will come of it any more; the first reason stays."""
        with self.watch:
            if self.ended:
                return
            self.lost, self.refusal = reason, error
            self.out.abandon()
            self.err.abandon()
            self.watch.notify()
        self.tell_end()

    def tell_end(self) -> None:
        """It has ended: tell who wants to know."""
        if self.on_end is not None:
            self.on_end(self.status, self.lost)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status is not None or self.lost is not None

    @property
    def full(self) -> str:
        """The stream that has no room for more, so that the command waits for its reader; "" if none."""
        return "stdout" if self.out.full else "stderr" if self.err.full else ""

    def drop(self) -> None:
        """Drop output that there is no room for: nobody will read it."""
        self.out.drop()
        self.err.drop()

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


def tell(sender: asyncio.Future[None], error: Exception | None) -> None:
    """Tell who waits that the data have gone, or why they have not."""
    if sender.done():
        return
    sender.add_done_callback(lambda future: future.exception())  # nobody need be waiting for it
    if error is None:
        sender.set_result(None)
    else:
        sender.set_exception(error)
