"""The wire to the QEMU guest agent: one line of JSON each way, and back in step after anything was lost.

The protocol is QEMU's docs/interop/qemu-ga-ref. The agent does one thing after the other and answers in that order, but
an answer does not say to what: one that nobody waits for any more, or that an agent before a reset had begun, must not
be taken for the next one. ``guest-sync-delimited`` is made for that: its answer alone follows a byte 0xFF.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Mapping
from typing import Any

from pytest_kvm.errors import AgentError
from pytest_kvm.guest.lines import Lines
from pytest_kvm.guest.result import shorten

# qga/qapi-schema.json: what only ever answers with an error, since the guest may be gone by then.
SILENT = ("guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid")
_MARK = b"\xff"
_CHUNK = 1 << 20
# Bytes of an answer. The agent reads 48 MiB of a file at once (qga/commands.c), which is a third more in base64.
_LONGEST_LINE = (64 << 20) + 1024
# Values in an answer, however deep: each takes ten times the memory here that its text takes. Those of a large guest's
# disks are some thousands.
_MOST_VALUES = 1 << 19
# Bytes that are looked at for what was said before some news.
_MOST_AT_ONCE = 2 * _LONGEST_LINE
_SHOWN = 1 << 10


class AgentPort:
    """The host's end of the agent's port; everything here runs in the I/O thread.

    ``life`` counts the agents that were heard of: what one of them has handed out means nothing to the next. ``open``
    says whether one has the port open, None as long as QEMU has not told. ``ended`` says that QEMU is gone.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.life = 0
        self.open: bool | None = None
        self.ended = False
        self._name = name
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._receive)
        self._turn = asyncio.Lock()
        self._gone = ""  # why the last one that was lost was
        self._in_step = False
        self._lines = Lines(_LONGEST_LINE)
        # The command whose turn it is, the life that it belongs to, and its answer to come.
        self._command = ""
        self._life: int | None = None
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        # The synchronisation in flight: its number, and its end, which is an answer or the need for another one.
        self._number = 0
        self._synced: asyncio.Future[None] | None = None

    async def ask(self, command: str, arguments: Mapping[str, object] | None, *, life: int | None = None) -> Any:
        """Send a command and return what the agent returns.

        Waits as long as there is no answer, and at first as long as there is no agent: what is sent to a port that
        nobody has open stays in the socket until somebody has. ``life`` is the one that the arguments belong to.
        Raises AgentError.
        """
        async with self._turn:
            self._command, self._life = command, life
            self._check()
            while not self._in_step:
                await self._synchronize()
                self._check()
            # Until the answer is here: whatever ends the wait for it, it may still come.
            self._in_step = False
            self._answer = self._loop.create_future()
            try:
                await self._send(_line(command, arguments))
                if command in SILENT:
                    # This is answered when that was neither refused nor the end of the agent.
                    await self._send(_line("guest-ping", None))
                answer = await self._answer
            finally:
                self._answer = None
            if "error" not in answer:
                return answer["return"]
            if command in SILENT:
                self._in_step = False  # the other answer is still to come
            refusal = answer["error"]
            raise AgentError(
                f"VM {self._name!r}: guest agent command {command!r} failed: {refusal['desc']} ({refusal['class']})",
                command=command,
                error_class=refusal["class"],
            )

    def _check(self) -> None:
        if self.ended:
            raise self._lost("the machine is off")
        if self._life is not None and self._life != self.life:
            raise self._lost(self._gone)

    async def _synchronize(self) -> None:
        """Wait for an answer that is to nothing else, or for a reason to ask once more."""
        self._number = secrets.randbits(31)
        self._synced = self._loop.create_future()
        # The mark makes the agent forget what it may have of a line that was not sent to its end.
        await self._send(_MARK + _line("guest-sync-delimited", {"id": self._number}))
        await self._synced

    async def _send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._connection, data)
        except OSError:
            self.end()

    def _receive(self) -> None:
        if self._take_piece() is None:
            self.end()

    def _take_piece(self) -> int | None:
        """Take what has arrived, of that a piece; return its size, None when nothing more will come."""
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            return None
        for line in self._lines.feed(data):
            self._take(line)
        return len(data) or None

    def _drain(self) -> None:
        """Take all that has arrived; a guest that never stops talking is not listened to for ever."""
        size = 0
        while not self.ended and size < _MOST_AT_ONCE and (piece := self._take_piece()):
            size += piece

    def _take(self, line: bytes | None) -> None:
        if line is None:
            self._refuse(f"it said a line of more than {_LONGEST_LINE >> 20} MiB")
            return
        _, mark, reply = line.rpartition(_MARK)
        if mark:
            # An earlier one may still be answered, too; those of its time are dropped up to the last one's.
            awaited = self._synced is not None and not self._synced.done()
            if self._synced is not None and awaited and _decoded(reply) == {"return": self._number}:
                self._in_step = True
                self._synced.set_result(None)
        elif self._answer is not None and not self._answer.done() and line.strip():
            answer = _decoded(line)
            if answer is None:
                self._refuse(f"it said something else: {shorten(line[:_SHOWN].decode(errors='backslashreplace'))}")
            else:
                self._in_step = True
                self._answer.set_result(answer)
        # Else it is an answer that nobody waits for any more.

    def _refuse(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._lost(reason))

    def changed(self, is_open: bool) -> None:
        """QEMU has told that the guest opened or closed the port; of changes within a second only the last is told."""
        if not is_open:
            self._drain()  # what it had said before
            self.lose("the agent closed its port")
        elif self.open:
            self.lose("the agent was started again")
        self.open = is_open
        if is_open and self._synced is not None and not self._synced.done():
            self._synced.set_result(None)  # its predecessor may have got it, and answers no more

    def reset(self) -> None:
        """The machine was reset."""
        self.open = False
        self.lose("the machine was reset")

    def lose(self, reason: str) -> None:
        """The agent is gone, and with it what it has handed out; another one is waited for when there is need."""
        self.life += 1
        self._gone = reason
        self._in_step = False
        if self._answer is not None and not self._answer.done():
            if self._command in SILENT:
                self._answer.set_result({"return": {}})
            else:
                self._answer.set_exception(self._lost(reason))
        if self._synced is not None and not self._synced.done() and (self.ended or self._life is not None):
            self._synced.set_exception(self._lost(reason))

    def end(self) -> None:
        """The machine went off: nothing will be answered any more."""
        self._drain()
        if not self.ended:
            self.ended = True
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self.lose("the machine went off")

    def _lost(self, reason: str) -> AgentError:
        command = self._command
        return AgentError(f"VM {self._name!r}: no answer to guest agent command {command!r}: {reason}", command=command)


def _line(command: str, arguments: Mapping[str, object] | None) -> bytes:
    request: dict[str, object] = {"execute": command}
    if arguments:
        request["arguments"] = dict(arguments)
    return json.dumps(request).encode() + b"\n"


def _decoded(line: bytes) -> dict[str, Any] | None:
    """Return the answer in a line, None if it is none."""
    if sum(map(line.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        return None
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    refusal = answer.get("error")
    if isinstance(refusal, dict) and all(isinstance(refusal.get(key), str) for key in ("class", "desc")):
        return answer
    return answer if "return" in answer and refusal is None else None
