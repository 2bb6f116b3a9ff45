"""The serial console as a pexpect spawn, with a few verbs more."""

from __future__ import annotations

import codecs
import io
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import pexpect
from pexpect.spawnbase import SpawnBase

from pytest_kvm import errors
from pytest_kvm.guest.result import CompletedCommand
from pytest_kvm.guest.serial import SerialPort
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline

# A busybox shell asks a terminal of unknown size where its cursor is, right behind the prompt.
_CURSOR_QUERY = r"(?:\x1b\[6n)?$"
# Not what a shell says after a login: "Last login: …".
LOGIN_PROMPT = r"(?<!Last )[Ll]ogin: ?$"
PASSWORD_PROMPT = r"[Pp]assword: ?$"
# Serial lines are programmed, not typed: what pexpect does between a child's echo and our typing is not needed.
_READ_SIZE = 1 << 16


class ConsoleTimeout(errors.ConsoleTimeout, pexpect.TIMEOUT):
    """The package's ConsoleTimeout, and a TIMEOUT for code that knows pexpect."""

    __module__ = errors.__name__  # reports name the public one


class Console(SpawnBase):  # type: ignore[type-arg]  # generic in its stubs only
    """The machine's serial console.

    Everything that a pexpect spawn does, in text: ``expect``, ``expect_exact``, ``sendline``, ``before``, ``after``,
    ``match`` … A pattern that does not appear in time is a ConsoleTimeout (which is a pexpect.TIMEOUT as well); a
    machine that goes off ends the wait at once.
    """

    def __init__(self, *, name: str, port: SerialPort, image: Image | None) -> None:
        super().__init__(timeout=30, maxread=_READ_SIZE, encoding="utf-8", codec_errors="backslashreplace")
        self.name = f"<console of VM {name!r}>"
        self.delayafterread = None
        self.linesep = "\r"
        self.closed = False
        # A character may be cut in two by the boundary of a read.
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._vm = name
        self._port = port
        self._image = image

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
        self._log(text, "read")  # type: ignore[attr-defined]  # pexpect's, not in its stubs
        return text

    def send(self, s: str) -> int:
        """Type ``s``; return the number of bytes."""
        self._log(s, "send")  # type: ignore[attr-defined]  # pexpect's, not in its stubs
        data = s.encode()
        self._port.write(data)
        return len(data)

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

    def login(self, user: str | None = None, password: str | None = None, *, timeout: float = 60.0) -> None:
        """Log in, unless a shell's prompt is there already; ``user`` and ``password`` default to the image's.

        Raises ConsoleTimeout when there is no prompt in ``timeout`` seconds.
        """
        image = self._image
        deadline = Deadline(timeout)
        name = user or (image.login if image else None) or "root"
        secret = password if password is not None else (image.password if image else None)
        prompt = image.prompt if image else r"[$#] "
        prompts = [LOGIN_PROMPT, PASSWORD_PROMPT, prompt + _CURSOR_QUERY]
        # Enter makes a prompt appear again that somebody has read; one that is there already must not get it.
        seen = self.expect([*prompts, pexpect.TIMEOUT], timeout=0)
        if seen == len(prompts):
            self.sendline()
            seen = self.expect(prompts, timeout=deadline.remaining())
        while seen != 2:
            self.sendline(name if seen == 0 else secret or "")
            seen = self.expect(prompts, timeout=deadline.remaining())

    def run(self, command: str, *, timeout: float = 60.0) -> CompletedCommand[str]:
        """Run a command in the shell at whose prompt the console is, and return its status and output.

        stdout and stderr come as one, in ``stdout``, with whatever the kernel prints meanwhile; vm.run is free of
        that. Raises ConsoleTimeout.
        """
        started = time.monotonic()
        deadline = Deadline(timeout)
        mark = secrets.token_hex(6)
        # The quotes keep the echo of what is typed from looking like what is printed.
        self.sendline(f"echo '{mark}'-begin; {{ {command}\n}}; echo '{mark}'-end $?")
        self.expect(rf"{mark}-begin\r*\n", timeout=deadline.remaining())
        self.expect(rf"{mark}-end (\d+)\r*\n", timeout=deadline.remaining())
        output = re.sub("\r+\n", "\n", str(self.before))
        match = self.match
        status = int(match.group(1)) if isinstance(match, re.Match) else -1
        return CompletedCommand(command, status, output, "", time.monotonic() - started)
