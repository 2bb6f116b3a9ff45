"""What stands on the console: which prompt, whatever the kernel prints into it."""

from __future__ import annotations

import enum
import re

from pytest_kvm.visible import ESCAPE_SEQUENCE

# Not what a shell says after a login: "Last login: …".
LOGIN_PROMPT = r"(?<!Last )[Ll]ogin: ?\Z"
USUAL_PROMPT = r"[$#] "
PASSWORD_PROMPT = r"[Pp]assword(?: for [^\n:]+)?: ?\Z"

# printk's time (with a level before it, console_msg_format=syslog, and a caller behind it, CONFIG_PRINTK_CALLER). The
# kernel writes a message as a whole to a serial line, and into the middle of whatever a program is writing to it.
_STAMP = r"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? "
# There are limits, and a look behind, so that no text makes the search for all that slow: a guest may print anything.
_COLOUR = r"(?:\x1b\[[\d;]{0,20}[mK]){0,4}"
_WORD = rf"{_COLOUR} *(?:OK|FAILED|WARN|INFO|DEPEND|TIME|SKIP) *{_COLOUR}"
_CYLON = r"(?=[^\]\n]{0,80}\*)(?:[* ]|\x1b\[[\d;]{0,20}[mK]){1,30}"
# Status lines of systemd (src/core/show-status.c); those that say what begins have no word, but the room for it.
_STATUS = rf"(?<!\r)\r*{_COLOUR}\[(?:{_WORD}|{_CYLON})\] | {{9}}[A-Z][a-z]+ing "
# A whole line that nobody typed and no prompt is part of; for use inside of other patterns.
NOISE = rf"(?:(?:{_STAMP}|{_STATUS})[^\n]*\n)*"
_NOISE = re.compile(rf"(?:{_STAMP}|{_STATUS})[^\n]*\n")
_UNFINISHED_NOISE = re.compile(rf"(?:{_STAMP}|{_STATUS})[^\n]*\Z")
# … and control characters that print nothing.
_ESCAPE = re.compile(rf"{ESCAPE_SEQUENCE}|[\x00\x07\x0e\x0f]")
_LINE_END = re.compile(r"(?<!\r)\r+\n")
# Enough for what a login says before it asks again, for a line, and for a prompt.
_KEPT_LINES = 16 << 10
_KEPT_LINE = 4 << 10
_PROMPT_WINDOW = 1 << 10
_READINESS_WINDOW = 64 << 10


class Sight(enum.Enum):
    """A prompt at the end of what stands on the console."""

    LOGIN = "a login prompt"
    PASSWORD = "a password prompt"
    SHELL = "a shell's prompt"


class Screen:
    """Text of the console, without escape sequences and without what the kernel and systemd print in between."""

    def __init__(self) -> None:
        self._lines = ""
        # The last one, which is unfinished, as it came and as it counts; only in it something can still be removed.
        self._raw = self._line = ""

    def clear(self) -> None:
        """Forget what came."""
        self._lines = self._raw = self._line = ""

    def feed(self, piece: str) -> bool:
        """Add what has come now; return whether it was more than messages."""
        before = self._line
        # Incomplete sequences and messages stay until their rest is there.
        clean = without_noise(_LINE_END.sub("\n", _ESCAPE.sub("", without_noise(self._raw + piece))))
        head, end, tail = clean.rpartition("\n")
        self._lines = (self._lines + head + end)[-_KEPT_LINES:]
        self._raw = tail[-_KEPT_LINE:]
        self._line = _UNFINISHED_NOISE.sub("", self._raw)
        return bool(end) or self._line != before

    @property
    def text(self) -> str:
        """What is there, without a message of the kernel that is still being printed."""
        return self._lines + self._line

    def sight(self, prompt: re.Pattern[str]) -> Sight | None:
        """Return the prompt at which it ends, if it does; ``prompt`` is the shell's."""
        text = self.text[-_PROMPT_WINDOW:]
        if re.search(LOGIN_PROMPT, text):
            return Sight.LOGIN
        if re.search(PASSWORD_PROMPT, text):
            return Sight.PASSWORD
        return Sight.SHELL if prompt.search(text) else None


def shell_prompt(prompt: str) -> re.Pattern[str]:
    """Return the pattern of a text that ends in a shell's prompt, of which ``prompt`` is the pattern, or a usual one.

    An image knows the prompt of its own user; others have one that is the shell's.
    """
    return re.compile(rf"(?:{prompt}|{USUAL_PROMPT})\Z", re.MULTILINE)


def shows_login_prompt(printed: bytes) -> bool:
    """Return whether what was printed on the console ends in a login prompt, with or without messages behind it."""
    screen = Screen()
    screen.feed(printed[-_READINESS_WINDOW:].decode(errors="backslashreplace"))
    return re.search(LOGIN_PROMPT, screen.text) is not None


def without_noise(text: str) -> str:
    """Return the text without whole messages of the kernel and systemd."""
    # The test is for speed: this is done for each of the few bytes that a serial line brings at once.
    end = text.rfind("\n") + 1
    return _NOISE.sub("", text[:end]) + text[end:] if end and ("] " in text or "  " in text) else text


def interrupted(text: str) -> str:
    """Return the pattern that finds ``text`` with messages of the kernel in the middle of it."""
    return NOISE.join(re.escape(character) for character in text)


def broken(text: str) -> str:
    """Return the pattern that finds ``text`` with the rest of some line in the middle of it, whatever it says."""
    return r"(?:[^\n]*\n)??".join(re.escape(character) for character in text)
