"""What came of a command in the guest."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pytest_kvm.errors import CommandError

Output = TypeVar("Output", str, bytes)
Command = str | Sequence[str]
# True: status 0; False: any; a number or several: exactly these.
Check = bool | int | Collection[int]

# Bytes that are kept of what a command writes to stdout, and as many of stderr. A test that wants more of it wants a
# file; a guest that floods us is not to take the memory of all other tests.
OUTPUT_LIMIT = 256 << 20
# Characters of a command's output in an error's text; all of it is in the error's attributes.
_LONGEST_TAIL = 8000
# What libcs and busybox say when a name does not resolve.
_UNRESOLVED = (
    "bad address",
    "name resolution",
    "Name or service not known",
    "can't resolve",
    "Could not resolve",
)


@dataclass(frozen=True)
class CompletedCommand(Generic[Output]):
    """A command that has ended: its script, exit status, output, and how long it took in seconds.

    The status is 128 plus the number when a signal ended the command, as in every shell.
    """

    command: str
    returncode: int
    stdout: Output
    stderr: Output
    seconds: float


def script_of(command: Command, *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Return the shell script that runs ``command``: a text as it is, a list quoted word by word.

    ``env`` is exported and ``cwd`` entered first, on the first line, so that line numbers in messages stay right.
    Raises ValueError for a name in ``env`` that no shell can export, and for a NUL byte.
    """
    script = command if isinstance(command, str) else shlex.join(command)
    parts = []
    for name, value in (env or {}).items():
        if not (name.isidentifier() and name.isascii()):
            raise ValueError(f"env: {name!r} is not a name that a shell can export")
        parts.append(f"export {name}={shlex.quote(value)};")
    if cwd is not None:
        parts.append(f"cd -- {shlex.quote(cwd)} || exit;")
    if "\0" in script or any("\0" in part for part in parts):
        raise ValueError("a command cannot contain a NUL byte")
    return " ".join([*parts, script])


def check_status(
    result: CompletedCommand[Output], check: Check, *, name: str, via: str, internet: bool
) -> CompletedCommand[Output]:
    """Return the result if its status is an expected one; raises CommandError otherwise.

    ``name`` is the machine's, ``via`` says how the command ran.
    """
    if check is False:
        return result
    expected = {0} if check is True else {check} if isinstance(check, int) else set(check)
    if result.returncode in expected:
        return result
    wanted = "" if expected == {0} else f", expected {', '.join(map(str, sorted(expected)))}"
    lines = [f"VM {name!r}: command returned status {result.returncode}{wanted} ({via}): {shorten(result.command)}"]
    for label, output in (("stdout", result.stdout), ("stderr", result.stderr)):
        text = _tail(output if isinstance(output, str) else decoded(output))
        if text.strip():
            lines.append(f"{label}: {text}")
    if not internet and any(sign in text for sign in _UNRESOLVED):
        lines.append("The guest reaches nothing outside by default; vm(internet=True) opens the user network.")
    raise CommandError(
        "\n".join(lines),
        command=result.command,
        returncode=result.returncode,
        stdout=result.stdout,
        stderr=result.stderr,
    )


def shorten(command: str, limit: int = 200) -> str:
    """Return the command's repr, cut to ``limit`` characters."""
    text = repr(command[: limit + 1])
    return text if len(text) <= limit else f"{text[:limit]}… ({len(command)} characters)"


def _tail(text: str, lines: int = 20) -> str:
    """Return the last lines, of ``_LONGEST_TAIL`` characters at most, with a note on what is left out."""
    text = text.rstrip("\n")
    if len(text) > _LONGEST_TAIL:
        shown = "\n".join(text[-_LONGEST_TAIL:].splitlines()[-lines:])
        return f"… ({len(text) - len(shown)} characters before)\n{shown}"
    kept = text.splitlines()
    return "\n".join(kept if len(kept) <= lines else [f"… ({len(kept) - lines} lines before)", *kept[-lines:]])


def decoded(data: bytes) -> str:
    """Return ``data`` as text; bytes that are not UTF-8 stay visible as ``\\xNN``."""
    return data.decode(errors="backslashreplace")
