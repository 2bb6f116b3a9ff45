"""Typing on the console and watching what comes of it, within one deadline."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pexpect

from pytest_kvm import errors
from pytest_kvm.guest.console.screen import Screen, Sight
from pytest_kvm.guest.console.serial import UNREAD_LIMIT
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.guest.console.console import Console

_READ_SIZE = 1 << 16
# Where an answer is looked for: it may have many messages of the kernel in the middle of it.
_RECENT = 1 << 16
# Characters that are kept of what comes between two lines that are typed.
TEXT_LIMIT = 16 << 20
# Seconds for the guest to take a line that is typed; it does so at once, unless it does not read at all.
_TYPING_PATIENCE = 5.0
# A shell prints its prompt within milliseconds of what came before it; nothing depends on it.
_SETTLE_QUIET = 0.5
_SETTLE_PATIENCE = 2.0


class ConsoleTimeout(errors.ConsoleTimeout, pexpect.TIMEOUT):
    """The package's ConsoleTimeout, and a TIMEOUT for code that knows pexpect."""

    __module__ = errors.__name__  # reports name the public one


class Dialogue:
    """A conversation with the guest.

    ``screen`` and ``text`` are what came since something was typed last, ``recent`` is the end of ``text``, whose
    beginning was not kept if it is ``cut``. ``expired`` makes the error that is raised when the deadline comes.
    """

    def __init__(
        self, console: Console, prompt: re.Pattern[str], deadline: Deadline, expired: Callable[[], Exception]
    ) -> None:
        self.console = console
        self.screen = Screen()
        self.recent = ""
        self.cut = False
        self._text = io.StringIO()
        self._prompt = prompt
        self._deadline = deadline
        self._expired = expired
        self._over = False
        self._changed = time.monotonic()

    def recall(self, shown: str) -> None:
        """Begin with what the console shows, whoever has read it."""
        self._put_aside()
        self.screen.feed(shown)

    def type(self, keys: str) -> None:
        """Type, after what was printed before has been put aside: it cannot be an answer to this."""
        self._put_aside()
        self.console.type(keys, Deadline(_TYPING_PATIENCE))

    def enter(self, line: str = "") -> None:
        """Type a line, and put aside what was printed before it."""
        self.type(line + self.console.linesep)

    def add(self, line: str = "") -> None:
        """Type a line, and keep what was printed before it."""
        self._changed = time.monotonic()
        self.console.type(line + self.console.linesep, Deadline(_TYPING_PATIENCE))

    def _put_aside(self) -> None:
        with contextlib.suppress(pexpect.TIMEOUT):  # then there is nothing
            self.console.read_nonblocking(UNREAD_LIMIT, 0.0)
        self.console.forget()
        self.recent, self.cut = "", False
        self._text = io.StringIO()
        self.screen.clear()
        self._changed = time.monotonic()

    def _read(self, patience: float) -> bool:
        try:
            piece = self.console.read_nonblocking(_READ_SIZE, patience)
        except pexpect.TIMEOUT:
            return False
        self._text.write(piece)
        if self._text.tell() > TEXT_LIMIT:
            self._text, kept = io.StringIO(), self._text.getvalue()[-TEXT_LIMIT // 2 :]
            self._text.write(kept)
            self.cut = True
        self.recent = (self.recent + piece)[-_RECENT:]
        if self.screen.feed(piece):
            self._changed = time.monotonic()
        return True

    def listen(self, patience: float) -> bool:
        """Wait for something to arrive; return False when nothing did for ``patience`` seconds.

        Raises what ``expired`` makes when the deadline has come, however much arrives, pexpect.EOF when the machine is
        off.
        """
        if self._deadline.expired and self._over:
            raise self._expired()
        self._over = self._deadline.expired  # what has arrived by now may be what was waited for
        left = self._deadline.remaining()
        if self._read(patience if left is None else min(patience, left)):
            return True
        if self._deadline.expired:
            raise self._expired()
        return False

    @property
    def text(self) -> str:
        """All that came since something was typed last, as it came."""
        return self._text.getvalue()

    @property
    def quiet(self) -> float:
        """For how many seconds nothing has come but messages of the kernel."""
        return time.monotonic() - self._changed

    def sight(self) -> Sight | None:
        """Return the prompt at which the console is, if it is at one."""
        return self.screen.sight(self._prompt)

    def prompt_comes(self, patience: float) -> bool:
        """Return whether the shell's prompt comes within ``patience`` seconds, whatever the deadline says."""
        limit = Deadline(patience)
        while self.sight() is not Sight.SHELL:
            if limit.expired or not self._read(limit.remaining() or 0.0):
                return False
        return True

    def settle(self, before: str, after: str, *, more: bool = False) -> None:
        """End behind the shell's prompt, and leave to pexpect what it would have found there.

        ``more`` says that something is still to come before the last prompt.
        """
        limit = Deadline(_SETTLE_PATIENCE)
        while (more or self.sight() is not Sight.SHELL) and not limit.expired and self._read(_SETTLE_QUIET):
            pass
        self.console.forget()
        self.console.before, self.console.after = before, after
