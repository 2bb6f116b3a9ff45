"""The serial console as a pexpect spawn, with a few verbs more."""

from __future__ import annotations

import codecs
import io
import time
from collections.abc import Sequence
from typing import Any

import pexpect
from pexpect.spawnbase import SpawnBase

from pytest_kvm.guest.console.dialogue import ConsoleTimeout
from pytest_kvm.guest.console.login import Login, account
from pytest_kvm.guest.console.screen import USUAL_PROMPT
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.console.typed import TypedCommand
from pytest_kvm.guest.record import recorded
from pytest_kvm.guest.result import Check, Command, CompletedCommand, check_status, script_of
from pytest_kvm.journal import Journal
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Usual

# Serial lines are programmed, not typed: what pexpect does between a child's echo and our typing is not needed.
_READ_SIZE = 1 << 16
_EXPECT = Usual(30)
_TIMEOUT = Usual(60)
# The guest takes that bit by bit; in a moment, unless it does not read.
_WRITE_SIZE = 1 << 16
# Characters that are kept for ``expect`` and ``before``: at least half of that.
EXPECT_LIMIT = 4 << 20


class Console(SpawnBase):  # type: ignore[type-arg]  # generic in its stubs only
    """The machine's serial console.

    Everything that a pexpect spawn does, in text: ``expect``, ``expect_exact``, ``sendline``, ``before``, ``after``,
    ``match`` … A pattern that does not appear in time is a ConsoleTimeout (which is a pexpect.TIMEOUT as well); a
    machine that goes off ends the wait at once. Of what does not match, the last 2 Mi characters are kept at least.
    """

    def __init__(self, *, name: str, port: SerialPort, image: Image | None, journal: Journal | None = None) -> None:
        super().__init__(
            timeout=port.limit(_EXPECT), maxread=_READ_SIZE, encoding="utf-8", codec_errors="backslashreplace"
        )
        self.name = f"<console of VM {name!r}>"
        self.delayafterread = None
        self.linesep = "\r"
        self.closed = False
        # A character may be cut in two by the boundary of a read.
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._vm = name
        self._port = port
        self._image = image
        self._journal = journal

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
        """Return what has arrived, waiting at most ``timeout`` seconds; raises TIMEOUT, or EOF when it is off."""
        limit = self.timeout if timeout == -1 else timeout
        data = self._port.read(size, Deadline(limit))
        if data is None:
            raise pexpect.TIMEOUT("nothing arrived")
        if not data:
            self.flag_eof = True
            raise pexpect.EOF("the machine is off")
        text: str = self._decode(data)
        self._limit_memory()
        self._log(text, "read")  # type: ignore[attr-defined]  # pexpect's, not in its stubs
        return text

    def _limit_memory(self) -> None:
        """Let a guest that never stops print no more than we have memory for; what is searched is at the end."""
        for name in ("_buffer", "_before"):
            if getattr(self, name).tell() > EXPECT_LIMIT:
                kept = io.StringIO()
                kept.write(getattr(self, name).getvalue()[-EXPECT_LIMIT // 2 :])
                setattr(self, name, kept)

    def send(self, s: str) -> int:
        """Type ``s``; return the number of bytes.

        Raises ConsoleTimeout when the guest takes nothing of it for ``timeout`` seconds (the attribute).
        """
        self._log(s, "send")  # type: ignore[attr-defined]  # pexpect's, not in its stubs
        data = s.encode(errors="surrogateescape")
        for start in range(0, len(data), _WRITE_SIZE):
            self._write(data[start : start + _WRITE_SIZE], Deadline(self.timeout))
        return len(data)

    def type(self, keys: str, deadline: Deadline) -> None:
        """Type a few keys; raises ConsoleTimeout when the guest does not take them before the deadline."""
        self._log(keys, "send")  # type: ignore[attr-defined]  # pexpect's, not in its stubs
        self._write(keys.encode(errors="surrogateescape"), deadline)

    def _write(self, data: bytes, deadline: Deadline) -> None:
        try:
            self._port.write(data, deadline)
        except TimeoutError:
            limit = deadline.seconds or 0.0
            raise ConsoleTimeout(
                f"VM {self._vm!r}: the guest did not read what was typed on its console, for {limit:g} s. "
                f"Console is at:\n{self.tail()}",
                timeout=limit,
            ) from None

    def sendline(self, s: str = "") -> int:
        """Type ``s`` and Enter; return the number of bytes."""
        return self.send(s + self.linesep)

    def write(self, s: str) -> None:
        """Type ``s``."""
        self.send(s)

    def writelines(self, sequence: Sequence[str]) -> None:
        """Type each of the texts."""
        for text in sequence:
            self.send(text)

    def sendcontrol(self, char: str) -> int:
        """Type a control character: ``sendcontrol("c")`` is Ctrl-C. Raises ValueError when there is none."""
        code = ord(char.upper()) ^ 0x40 if len(char) == 1 else -1
        if not 0 <= code < 0x20:
            raise ValueError(f"there is no control character for {char!r}")
        return self.send(chr(code))

    def sendeof(self) -> None:
        """Type Ctrl-D, the end of file."""
        self.sendcontrol("d")

    def sendintr(self) -> None:
        """Type Ctrl-C, the interrupt."""
        self.sendcontrol("c")

    def isalive(self) -> bool:
        """Return whether the machine is on."""
        return self._port.open

    def close(self, force: bool = True) -> None:
        """Do nothing: the console closes with the machine."""

    def forget(self) -> None:
        """Drop what was read and not matched: the machine goes back to an earlier state."""
        self._buffer, self._before = io.StringIO(), io.StringIO()

    def tail(self, lines: int = 20) -> str:
        """Return the last lines that the guest printed, read or not."""
        return self._port.tail(lines)

    def expect(  # type: ignore[override]  # no asyncio variant
        self, pattern: Any, timeout: float | None = -1, searchwindowsize: int | None = -1
    ) -> int:
        """As pexpect's; raises ConsoleTimeout instead of TIMEOUT."""
        return self.expect_list(self.compile_pattern_list(pattern), timeout, searchwindowsize)

    def expect_list(  # type: ignore[override]  # no asyncio variant
        self, pattern_list: Any, timeout: float | None = -1, *args: Any, **kwargs: Any
    ) -> int:
        """As pexpect's; raises ConsoleTimeout instead of TIMEOUT."""
        try:
            return int(super().expect_list(pattern_list, timeout, *args, **kwargs))
        except pexpect.TIMEOUT:
            raise self._timed_out(pattern_list, timeout) from None

    def expect_exact(  # type: ignore[override]  # no asyncio variant
        self, pattern_list: Any, timeout: float | None = -1, *args: Any, **kwargs: Any
    ) -> int:
        """As pexpect's; raises ConsoleTimeout instead of TIMEOUT."""
        try:
            return int(super().expect_exact(pattern_list, timeout, *args, **kwargs))
        except pexpect.TIMEOUT:
            raise self._timed_out(pattern_list, timeout) from None

    def _timed_out(self, patterns: Any, timeout: float | None) -> ConsoleTimeout:
        limit = self.timeout if timeout == -1 else timeout
        listed = patterns if isinstance(patterns, list) else [patterns]
        wanted = " or ".join(repr(getattr(pattern, "pattern", pattern)) for pattern in listed)
        return ConsoleTimeout(
            f"VM {self._vm!r}: console did not show {wanted} within {limit or 0.0:g} s. Console is at:\n{self.tail()}",
            timeout=limit or 0.0,
        )

    def login(self, user: str | None = None, password: str | None = None, *, timeout: float = _TIMEOUT) -> None:
        """Come to the prompt of a shell that answers, logging in where one has to; the console may be anywhere.

        ``user`` and ``password`` default to the image's. A shell that is there already is taken as it is, unless
        ``user`` is given and it is somebody else's: then that one is logged out. Raises LoginFailed when the guest
        refuses (three times, as typing can go wrong) or wants the password changed, ConsoleTimeout when there is no
        shell in ``timeout`` seconds.
        """
        timeout = self._port.limit(timeout)
        who = account(user, password, self._image)
        Login(self, who, vm=self._vm, prompt=self._prompt, timeout=timeout).perform(self._port.shown())

    def run(self, command: Command, *, timeout: float = _TIMEOUT, check: Check = False) -> CompletedCommand[str]:
        """Run a command in the POSIX shell at whose prompt the console is, and return its status and output.

        What it changes in the shell (directory, variables) stays, as if it were typed; with ``exit``, ``return`` or
        ``set -e`` in it, it runs in a subshell, which they end. stdin is the terminal. stdout and stderr come as one,
        in ``stdout``, with whatever the kernel prints meanwhile; vm.run is free of that. Raises ConsoleTimeout after a
        Ctrl-C, ShellLost when the console is not in a shell, CommandError for a status that ``check`` does not expect.
        """
        timeout = self._port.limit(timeout)
        started = time.monotonic()
        script = script_of(command)
        typed = TypedCommand(self, script, vm=self._vm, prompt=self._prompt, timeout=timeout)
        with recorded(self._journal, script, "console") as attempt:
            status, output = typed.run()
            attempt.status = status
        result = CompletedCommand(script, status, output, "", time.monotonic() - started)
        return check_status(result, check, name=self._vm, via="console", internet=True)

    @property
    def _prompt(self) -> str:
        return self._image.prompt if self._image else USUAL_PROMPT
