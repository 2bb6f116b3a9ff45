"""A command typed at the console's shell, its status and its output."""

from __future__ import annotations

import re
import secrets
import shlex
from typing import TYPE_CHECKING, NamedTuple

from pytest_kvm.errors import ShellLost, TooMuchOutput
from pytest_kvm.guest.console.dialogue import TEXT_LIMIT, ConsoleTimeout, Dialogue
from pytest_kvm.guest.console.screen import NOISE, Sight, broken, interrupted, shell_prompt, without_noise
from pytest_kvm.guest.result import shorten
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.guest.console.console import Console

# busybox drops what a line has beyond FEATURE_EDITING_MAX_LEN (512 where it is built small), the kernel what it has
# beyond 4095 bytes (drivers/tty/n_tty.c).
_LINE_LIMIT = 480
_PIECE = 300
# What a terminal, a line editor or a shell's history acts on, and what is beyond ASCII: an editor may take it for keys.
_UNTYPABLE = re.compile(r"[^ -~]|!")
# These must not end the login shell.
_ENDS_SHELL = re.compile(r"\b(?:exit|return)\b|\bset\s+-\w*e|\berrexit\b")
# Seconds without a word after which the prompt on the console tells what has happened. Messages of the kernel may have
# no time to know them by (printk.time=0); when one of them is in the middle of an answer, it is asked for again.
_QUIET = 1.0
_QUESTIONS = 3
_INTERRUPT_PATIENCE = 3.0
_CTRL_C = "\x03"


class Line(NamedTuple):
    """A line to type, the pattern of the answer to it, and the line that asks for the answer again."""

    text: str
    answer: re.Pattern[str]
    question: str


def lines_of(script: str, mark: str) -> list[Line]:
    """Return the lines to type that run a script; the answer to the last one has its status as a group.

    The script reaches ``eval`` as one word, so that neither its quotes nor its end swallow what follows; ``command``
    lets the shell go on after a syntax error in it (POSIX, Shell Command Language, 2.8.1).
    """
    question = f"echo '{mark}'-end-$_kvm."
    answer = re.compile(rf"{interrupted(f'{mark}-end-')}{NOISE}((?:\d{NOISE})+)\.")
    opening, closing = ("(", ")") if _ENDS_SHELL.search(script) else ("{", ";}")

    def last(word: str) -> Line:
        # 130 is the status of a line that was interrupted halfway.
        body = f"{opening} command eval {word}{closing}"
        return Line(f" _kvm=130; echo '{mark}'-begin; {body}; _kvm=$?; {question}", answer, question)

    # eval and printf take what begins with a hyphen for options, and not all of them know "--".
    text = script = f" {script}" if script.startswith("-") else script
    printed = _UNTYPABLE.search(script) is not None
    if not printed:
        line = last(shlex.quote(script))
        if len(line.text) <= _LINE_LIMIT:
            return [line]
        printed = "'" in script  # each would make a piece longer
    if printed:
        text = _format(script)
        line = last(_printf(f"'{text}'"))
        if len(line.text) <= _LINE_LIMIT:
            return [line]
    lines = []
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        length = f"echo '{mark}'-${{#_kvm_c}}."
        taken = re.compile(interrupted(f"{mark}-{start + len(piece)}."))
        lines.append(Line(f" _kvm_c={'$_kvm_c' if start else ''}'{piece}'; {length}", taken, length))
    return [*lines, last(_printf('"$_kvm_c"') if printed else '"$_kvm_c"')]


def _printf(format_: str) -> str:
    # Without printf nothing would be run, with success.
    return f'"$(printf {format_} || echo false)"'


def _format(script: str) -> str:
    """Return the format with which printf prints the script, in characters that can be typed between quotes."""
    return "".join(
        "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
        if character in "\\%'" or _UNTYPABLE.match(character)
        else character
        for character in script
    )


class TypedCommand:
    """A script that is typed at the prompt at which the console is."""

    def __init__(self, console: Console, script: str, *, vm: str, prompt: str, timeout: float) -> None:
        self._console = console
        self._script = script
        self._vm = vm
        self._timeout = timeout
        self._talk = Dialogue(console, shell_prompt(prompt), Deadline(timeout), self._expired)
        # The at sign is seldom in an output: it is what makes the search for the mark fast.
        self._mark = f"@{secrets.token_hex(6)}"
        self._begin = rf"{interrupted(f'{self._mark}-begin')}{NOISE}\r*{NOISE}\n"

    def run(self) -> tuple[int, str]:
        """Return status and output; raises ConsoleTimeout, and ShellLost when there is no shell, or no longer."""
        asked = False
        for line in lines_of(self._script, self._mark):
            self._talk.enter(line.text)
            answer, asked = self._answer(line)
        text = self._talk.text
        output = self._output(text[: len(text) - len(self._talk.recent) + answer.start()], asked)
        self._talk.settle(output, answer[0], more=asked)
        return int(without_noise(answer[1])), output.replace("\r\n", "\n")

    def _answer(self, line: Line) -> tuple[re.Match[str], bool]:
        """Return the answer to a line, and whether it was asked for again."""
        asked = 0
        while (answer := line.answer.search(self._talk.recent)) is None:
            self._talk.listen(_QUIET)
            if self._talk.cut:
                raise self._flood()
            if self._talk.quiet < _QUIET:
                continue
            sight = self._talk.sight()
            if sight is Sight.SHELL and asked < _QUESTIONS:
                asked += 1
                self._talk.add(line.question)
            elif sight in {Sight.LOGIN, Sight.PASSWORD}:
                self._check_shell(sight)
        return answer, asked > 0

    def _check_shell(self, sight: Sight) -> None:
        """Raise ShellLost for a prompt that is none of the command's."""
        shown = f"Console is at:\n{self._console.tail()}"
        if re.search(self._begin, self._talk.text) is None:
            raise ShellLost(
                f"VM {self._vm!r}: the console shows {sight.value} instead of a shell's: vm.console.login() comes "
                f"before vm.console.run({shorten(self._script)}). {shown}",
                command=self._script,
            )
        if sight is Sight.LOGIN and re.search(r"^\S+ [Ll]ogin: ?\Z", self._talk.screen.text, re.MULTILINE):
            raise ShellLost(
                f"VM {self._vm!r}: the console's shell ended with the command {shorten(self._script)}. {shown}",
                command=self._script,
            )

    def _output(self, text: str, asked: bool) -> str:
        """Return what came between the markers, of a text that ends where the answer begins."""
        # Where it begins a line it is not what ``set -x`` shows; where the terminal does not echo, it begins none.
        for pattern in (rf"(?<=[\r\n]){self._begin}", self._begin, rf"{broken(f'{self._mark}-begin')}\r*\n"):
            begin = re.search(pattern, text)
            if begin is not None:
                text = text[begin.end() :]
                break
        if asked:  # the first answer is in the text, and broken
            for pattern in (interrupted(f"{self._mark}-end-"), broken(f"{self._mark}-end-")):
                end = re.search(pattern, text)
                if end is not None:
                    return text[: end.start()]
        return text

    def _flood(self) -> TooMuchOutput:
        fate = self._interrupt()
        return TooMuchOutput(
            f"VM {self._vm!r}: command printed more than {TEXT_LIMIT >> 20} MiB on the console: "
            f"{shorten(self._script)}. {fate}. Let it write to a file, or use vm.run()",
            command=self._script,
            limit=TEXT_LIMIT,
        )

    def _interrupt(self) -> str:
        """Type Ctrl-C, and say what came of it."""
        try:
            self._talk.type(_CTRL_C)
        except ConsoleTimeout:
            return "Ctrl-C could not be typed"
        came = self._talk.prompt_comes(_INTERRUPT_PATIENCE)
        self._console.forget()
        return "Ctrl-C brought the prompt back" if came else "Ctrl-C did not bring the prompt"

    def _expired(self) -> Exception:
        shown = self._console.tail()
        done = "start" if re.search(self._begin, self._talk.text) is None else "end"
        fate = self._interrupt()
        return ConsoleTimeout(
            f"VM {self._vm!r}: command did not {done} within {self._timeout:g} s on the console: "
            f"{shorten(self._script)}. {fate}. Console was at:\n{shown}",
            timeout=self._timeout,
        )
