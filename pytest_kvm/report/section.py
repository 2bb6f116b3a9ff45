"""The few lines about a machine that a failed test shows in the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pytest_kvm.journal import Record
from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.visible import visible

# Lines about all machines of a test together, as many as can be read at a glance …
LINES = 56
# … but of each machine a few.
_FEWEST = 5
_COMMANDS = 10
# Characters of a command.
_WIDTH = 120
# So many lines in a row that were shown already are no accident.
_RUN = 3


def share(machines: int) -> int:
    """Return how many lines each of so many machines may have."""
    return max(_FEWEST, LINES // max(1, machines))


def section(evidence: Evidence, *, lines: int, told: str, place: str) -> str:
    """Return at most about ``lines`` lines: the console's end, the last commands, and the ``place`` of all the rest.

    What of the console is in ``told`` already, the test's own error for example, is not told again.
    """
    room = lines - 4  # headings and place
    commands = [_command(record) for record in evidence.commands][-max(1, min(_COMMANDS, room // 3)) :]
    commands = [command for command in commands if command not in told]
    tail = evidence.tail(max(1, room - len(commands)))
    # Where lines of source have been added, the lines themselves were told all the same.
    told += "".join(f"\n{finding.text}" for finding in evidence.findings if finding.title and finding.title in told)
    fresh = tail[_known(tail, told) :]
    parts = []
    if any(fresh):
        parts.append("console is at:" if len(fresh) == len(tail) else "console, after what is shown above:")
        parts += fresh
    if commands:
        parts += ["last commands:", *(f"  {command}" for command in commands)]
    if place:
        parts.append(f"everything: {place}")
    return "\n".join(parts)


def _known(tail: Sequence[str], told: str) -> int:
    """Return how many lines of the tail, from its beginning, need not be shown again.

    They end with the last few of it that stand one behind the other in what was told.
    """
    shown = [_bare(line) for line in visible(told).splitlines()]
    bare = [_bare(line) for line in tail]
    length = min(_RUN, len(bare))
    runs = {tuple(shown[start : start + length]) for start in range(len(shown) - length + 1)}
    for end in range(len(bare), length - 1, -1):
        run = tuple(bare[end - length : end])
        if any(run) and run in runs:
            return end
    return 0


def _bare(line: str) -> str:
    """Return a line without what pytest puts in front of those of an error."""
    return line.removeprefix("E   ").strip()


def _command(record: Record) -> str:
    """Return a record of the commands' journal in one line."""
    time = datetime.datetime.fromisoformat(str(record["time"])).strftime("%H:%M:%S")
    came, seconds = str(record["outcome"]), record.get("seconds")
    if came == "ended":
        came = f"status {record['status']}"
    took = f"{seconds:.2f} s" if isinstance(seconds, float) else ""
    text = visible(" ".join(str(record["command"]).split()))
    text = text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
    return f"{time} {took:>8}  {came:<10} ({record['via']}) {text}"
