"""Logging in on the console, whatever it shows at the moment."""

from __future__ import annotations

import enum
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_kvm.errors import LoginFailed
from pytest_kvm.guest.console.dialogue import ConsoleTimeout, Dialogue
from pytest_kvm.guest.console.screen import USUAL_PROMPT, Sight, shell_prompt
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.guest.console.console import Console

_ATTEMPTS = 3
# bash wants to be told twice when jobs are stopped; the rest is for a shell in a shell.
_EXITS = 5
# Seconds without a word until Enter is pressed, twice as many the next time: a prompt may have been printed to nobody,
# or have something behind it that is not the kernel's. More where a guest is known to be working on an answer.
_QUIET = 2.0
_ANSWER = 5.0
# The same when there are words, but no prompt among them.
_LONGEST = 20.0
_ECHO_PATIENCE = 3.0
_PROBE_PATIENCE = 10.0
# Until a guest that is not open yet is asked again.
_PAUSE = 1.0
_CTRL_U = "\x15"

# The words of login (util-linux, busybox, shadow) and of PAM's modules.
_REFUSED = re.compile(
    r"Login incorrect|Authentication failure|Permission denied|Access denied|Maximum number of tries", re.IGNORECASE
)
_CLOSED = re.compile(
    r"account[^\n]* (?:locked|expired|disabled)|account is (?:currently )?not available|"
    r"System is going down|System closed|logins are disabled|Too many logins",
    re.IGNORECASE,
)
_LATER = re.compile(r"System is booting up|Login timed out")
_CHANGE = re.compile(r"required to change|[Pp]assword change required|password has expired|Changing password for")
# The two parts of what PAM's modules ask then.
_OTHER, _ASKED = re.compile(r"[Cc]urrent|[Nn]ew|[Oo]ld"), re.compile(r" password: ?\Z")


@dataclass(frozen=True)
class Account:
    """Who logs in. ``given`` says that the test named the user, ``source`` whose the password is."""

    user: str
    password: str | None
    given: bool
    source: str


def account(user: str | None, password: str | None, image: Image | None) -> Account:
    """Return the account that login's arguments mean; what they do not say is the image's."""
    usual = (image.login if image else None) or "root"
    name = user or usual
    if password is not None:
        return Account(name, password, user is not None, "the argument of login()")
    known = image.password if image and name == usual else None
    return Account(name, known, user is not None, "the image's, Image(password=)")


class _Stage(enum.Enum):
    """What the guest is to answer."""

    NOTHING = "a login or shell prompt"
    NAME = "a password or shell prompt after the user name"
    PASSWORD = "a shell prompt after the password"
    PROBE = "the shell's answer to 'echo'"


class Login:
    """One login, through as many attempts as it takes."""

    def __init__(self, console: Console, who: Account, *, vm: str, prompt: str, timeout: float) -> None:
        self._console = console
        self._who = who
        self._vm = vm
        self._timeout = timeout
        self._prompt = prompt
        self._talk = Dialogue(console, shell_prompt(prompt), Deadline(timeout), self._expired)
        self._stage = _Stage.NOTHING
        self._entered = False
        self._ours = False
        self._tried = False
        self._failures = 0
        self._unheard = 0
        self._exits = 0
        self._said = ""

    def perform(self, shown: str) -> None:
        """Come to a shell that answers; ``shown`` is what stands on the console, read or not."""
        self._talk.recall(shown)
        # It may be older than the last reset; what comes after Enter is not.
        if self._talk.sight() is not None:
            self._enter()
        while True:
            sight = self._next_sight()
            if sight is Sight.LOGIN:
                self._judge()
                self._give_name()
            elif sight is Sight.PASSWORD:
                self._give_password()
            elif not self._entered:
                # A line of the boot's, or of the message of the day, can end like a prompt; hardly twice.
                self._enter()
            elif self._answers():
                break
        self._talk.settle(self._talk.text, "")

    def _enter(self) -> None:
        self._talk.enter()
        self._entered = True

    def _next_sight(self) -> Sight:
        patience = _QUIET if self._stage is _Stage.NOTHING else _ANSWER
        latest = Deadline(_LONGEST)
        while (sight := self._talk.sight()) is None:
            if self._talk.quiet >= patience or latest.expired:
                # What came before stays: it may be the reason of a refusal.
                self._talk.add()
                self._entered = True
                patience, latest = min(2 * patience, _LONGEST), Deadline(_LONGEST)
            self._talk.listen(min(patience - self._talk.quiet, latest.remaining() or 0.0))
        return sight

    def _judge(self) -> None:
        """See why an attempt ended at the login prompt again."""
        stage, self._stage = self._stage, _Stage.NOTHING
        if stage not in {_Stage.NAME, _Stage.PASSWORD}:
            return
        said = self._talk.screen.text
        if _LATER.search(said):
            pause = Deadline(_PAUSE)
            while not pause.expired:
                self._talk.listen(pause.remaining() or 0.0)
            return
        if _CLOSED.search(said):
            line = _line(_CLOSED, said)
            raise self._failed(f"console login as {self._who.user!r} is not possible: {line}", said=line)
        self._failures += 1
        self._said = _line(_REFUSED, said)
        if self._failures == _ATTEMPTS:
            raise self._refused()

    def _give_name(self) -> None:
        self._entered = False
        self._talk.type(self._who.user)
        if not self._echoed() and self._unheard < _ATTEMPTS - 1:
            # A getty that is starting drops what was typed before; Ctrl-U takes back what it did not drop.
            self._unheard += 1
            self._talk.enter(_CTRL_U)
            return
        self._talk.enter()
        self._stage, self._ours = _Stage.NAME, True

    def _echoed(self) -> bool:
        limit = Deadline(_ECHO_PATIENCE)
        while not self._talk.screen.text.endswith(self._who.user):
            if limit.expired:
                return False
            self._talk.listen(limit.remaining() or 0.0)
        return True

    def _give_password(self) -> None:
        who = self._who
        if self._stage not in {_Stage.NAME, _Stage.PASSWORD}:
            # Somebody else's name was given. It has to be refused for the login prompt to come again.
            self._enter()
            return
        asked = _change_asked(self._talk.screen.text)
        if asked:
            raise self._failed(
                f"the guest demands that {who.user!r} changes the password at this login ({asked})",
                said=asked,
                hint="Let it not expire, as with 'chpasswd: {expire: false}' in user_data, or log in as another user.",
            )
        if who.password is None:
            raise self._failed(
                f"the guest asks for the password of {who.user!r} on the console, and none is known",
                hint="Give it with login(password=), or with the image's Image(password=).",
            )
        if self._stage is _Stage.PASSWORD:
            self._failures += 1
            if self._failures == _ATTEMPTS:
                raise self._refused()
        self._entered = False
        self._talk.enter(who.password)
        self._stage, self._tried = _Stage.PASSWORD, True

    def _answers(self) -> bool:
        """Return whether it is a shell that shows the prompt, and that of the right user."""
        first, second = secrets.token_hex(4), secrets.token_hex(4)
        self._stage, self._entered = _Stage.PROBE, False
        # Not to be found in the echo of what is typed. A login prompt takes it for a name, and is not lost by that.
        self._talk.enter(f" echo {first}''{second}; id -un; echo {second}''{first}")
        answer = re.compile(f"{first}{second}\n(.*?)\n?{second}{first}\n", re.DOTALL)
        limit = Deadline(_PROBE_PATIENCE)
        while (match := answer.search(self._talk.screen.text)) is None:
            if limit.expired or self._talk.sight() in {Sight.LOGIN, Sight.PASSWORD}:
                return False
            self._talk.listen(limit.remaining() or 0.0)
        user = match[1].strip()
        # A guest may know no id, and one user by several names.
        if self._ours or not self._who.given or user == self._who.user or not re.fullmatch(r"[\w.$-]+", user):
            return True
        if self._exits == _EXITS:
            raise self._failed(
                f"the console is logged in as {user!r}, not as {self._who.user!r}, "
                f"and is so again after {_EXITS} times 'exit'",
                hint="A getty that logs in by itself (--autologin) offers no other login.",
            )
        self._exits += 1
        self._stage = _Stage.NOTHING
        self._talk.enter("exit")
        return False

    def _refused(self) -> LoginFailed:
        who = self._who
        times = "once" if self._failures == 1 else f"{self._failures} times"
        if not self._said:
            return self._failed(
                f"console login as {who.user!r} ended at the login prompt again {times}, without a word of refusal",
                hint="Does its shell (/etc/passwd) end at once, or is the guest closed (/etc/nologin)?",
            )
        tried = f"The password was {who.source}." if self._tried else "It was not asked for a password."
        return self._failed(f"console login as {who.user!r} was refused {times} ({self._said})", self._said, tried)

    def _failed(self, what: str, said: str = "", hint: str = "") -> LoginFailed:
        text = f"VM {self._vm!r}: {what}. Console is at:\n{self._console.tail()}"
        return LoginFailed(f"{text}\n{hint}" if hint else text, user=self._who.user, said=said)

    def _expired(self) -> Exception:
        if self._failures:
            return self._refused()
        prompts = " or ".join(map(repr, dict.fromkeys([self._prompt, USUAL_PROMPT])))
        return ConsoleTimeout(
            f"VM {self._vm!r}: console login as {self._who.user!r} did not come to a shell within {self._timeout:g} s "
            f"(waiting for {self._stage.value}; a shell's prompt is {prompts}). Console is at:\n{self._console.tail()}",
            timeout=self._timeout,
        )


def _change_asked(text: str) -> str:
    """Return the line in which a new password is asked for; empty when none is."""
    last = text.rpartition("\n")[2]
    other = _OTHER.search(last)
    if other is not None and _ASKED.search(last, other.end()):
        return _line(_CHANGE, text) or last.strip()
    return _line(_CHANGE, text)


def _line(pattern: re.Pattern[str], text: str) -> str:
    """Return the line in which the pattern is found; empty when it is in none."""
    return next((line.strip() for line in text.splitlines() if pattern.search(line)), "")
