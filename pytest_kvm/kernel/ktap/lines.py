"""What a line of KTAP or TAP is, whoever stands around it.

KTAP is in the kernel's Documentation/dev-tools/ktap.rst; TAP 13 and 14 are those of testanything.org.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_kvm.kernel.ktap.case import Outcome

# printk's: the level of a raw record, seconds since boot, and with CONFIG_PRINTK_CALLER the thread or the CPU.
_PRINTK = re.compile(r"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
_VERSION = re.compile(r"(?:KTAP version (\d{1,9})|TAP version (\d{1,9}))\s*$")
_PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*(.*))?\s*$")
_RESULT = re.compile(r"(not ok|ok)(?:\s+(\d{1,9}))?(?:\s+(.*))?$")
_BAIL_OUT = re.compile(r"Bail out!\s*(.*)$", re.IGNORECASE)
_SUBTEST = re.compile(r"# Subtest(?::\s*(.*))?$")
_KSELFTEST = re.compile(r"# (selftests: .+)$")
_DIRECTIVE = re.compile(r"(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\w*\b[:\s]*(.*)$", re.IGNORECASE)
# A "#" that no backslash hides: before a directive there is a blank.
_HASH = re.compile(r"(?:^|(?<=\s))#")


@dataclass(frozen=True)
class Version:
    """``KTAP version 1`` or ``TAP version 13``."""

    known: bool


@dataclass(frozen=True)
class Plan:
    """``1..N``; with ``# SKIP`` nothing is run, for a ``reason``."""

    count: int
    skipped: bool
    reason: str


@dataclass(frozen=True)
class Result:
    """``ok 1 name # SKIP reason``; ``number`` is None where there is none."""

    outcome: Outcome
    number: int | None
    name: str
    reason: str


@dataclass(frozen=True)
class BailOut:
    """``Bail out!``: nothing more is run."""

    reason: str


@dataclass(frozen=True)
class Subtest:
    """``# Subtest: name``, or kselftest's announcement of the program that is run next."""

    name: str
    inside: bool


Line = Version | Plan | Result | BailOut | Subtest | None


def classify(text: str) -> Line:
    """Return what a line is, without what it is indented with; None for everything that is not KTAP's."""
    for pattern, read in _READERS:
        if match := pattern.match(text):
            return read(match)
    return None


def _result(good: bool, number: str | None, rest: str) -> Result:
    name, directive = _split(rest)
    name = re.sub(r"\\([\\#])", r"\1", re.sub(r"^-\s+|^-$", "", name).strip())
    outcome, reason = Outcome.PASSED if good else Outcome.FAILED, directive
    match = _DIRECTIVE.match(directive)
    if match is not None:
        reason = match[2].strip()
        outcome = {
            "SKIP": Outcome.SKIPPED,
            "TODO": Outcome.XPASSED if good else Outcome.XFAILED,
            "XFAIL": Outcome.XFAILED,
            "TIMEOUT": Outcome.TIMEOUT,
            "ERROR": Outcome.ERROR,
        }[match[1].upper()]
    return Result(outcome, int(number) if number else None, name, reason)


def _split(rest: str) -> tuple[str, str]:
    """Split a result's text at the "#" that begins a directive, or data such as kselftest's ``# exit=1``."""
    for match in _HASH.finditer(rest):
        before, after = rest[: match.start()], rest[match.end() :]
        # "test #1" is a name.
        if after[:1].isspace() or _DIRECTIVE.match(after):
            return before, after.strip()
    return rest, ""


def pieces(line: str) -> list[tuple[str, bool]]:
    """Take a line of a console apart: each piece without printk's prefix, and whether it had one.

    A message of the kernel may have come into the middle of a program's line.
    """
    found = []
    start = 0
    stamped = False
    for match in _PRINTK.finditer(line):
        if match.start() > start:
            found.append((line[start : match.start()], stamped))
        start, stamped = match.end(), True
    found.append((line[start:], stamped))
    return found


def _plan(match: re.Match[str]) -> Plan:
    skip = re.match(r"skip\w*\s*(.*)$", match[2] or "", re.IGNORECASE)
    return Plan(int(match[1]), skip is not None or int(match[1]) == 0, skip[1] if skip else match[2] or "")


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Line]], ...] = (
    (_RESULT, lambda match: _result(match[1] == "ok", match[2], match[3] or "")),
    (_PLAN, _plan),
    (_VERSION, lambda match: Version(match[1] == "1" or match[2] in ("13", "14"))),
    (_BAIL_OUT, lambda match: BailOut(match[1])),
    (_SUBTEST, lambda match: Subtest(match[1] or "", inside=True)),
    (_KSELFTEST, lambda match: Subtest(match[1], inside=False)),
)
