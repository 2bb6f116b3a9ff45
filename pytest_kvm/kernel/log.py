"""The kernel's log as records: level, time, text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# By number, as in include/linux/kern_levels.h; syslog(2) has the names.
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_RECORD = re.compile(r"<(\d+)>\[ *(\d+\.\d+)\](?:\[ *[TC]\d+\])? ?(.*)$")


@dataclass(frozen=True)
class Message:
    """A message of the kernel: its ``level`` (``warning``), ``time`` in seconds since it booted, its ``text``."""

    level: str
    time: float
    text: str

    @property
    def severity(self) -> int:
        """The level as a number: 0 is the most severe."""
        return LEVELS.index(self.level)


def parse_log(text: str) -> list[Message]:
    """Return the records of ``dmesg -r``; lines without a prefix belong to the record before them."""
    found: list[Message] = []
    for line in text.splitlines():
        match = _RECORD.match(line)
        if match is not None:
            found.append(Message(LEVELS[int(match[1]) & 7], float(match[2]), match[3]))
        elif found:
            last = found.pop()
            found.append(Message(last.level, last.time, f"{last.text}\n{line}"))
    return found


def newer(messages: Sequence[Message], before: Sequence[Message]) -> list[Message]:
    """Return the messages that came after the others, whose oldest may have left the buffer meanwhile."""
    if not before:
        return list(messages)
    last = before[-1]
    for number in range(len(messages) - 1, -1, -1):
        if messages[number] == last:
            return list(messages[number + 1 :])
    return list(messages)
