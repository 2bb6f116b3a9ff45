"""What the kernel says while its tests run, whichever way it comes: /dev/kmsg, dmesg, the console."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pytest_kvm.kernel.log import Message

# A line of a message, and when it was said, in seconds since boot.
Said = tuple[float, str]
# "6,339,5140900,-;text", of Documentation/ABI/testing/dev-kmsg; lines that begin with a blank are data about it.
_RECORD = re.compile(r"\d+,(\d+),(\d+),[^;]*;(.*)$")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
# printk's stamp, somewhere in a line of a console.
_STAMP = re.compile(r"\[ *(\d+\.\d{6})\](?:\[ *[TC]\d+\])? ?(.*?)\s*$")
# What some begin with, each time that a module is loaded.
_HEAD = re.compile(r"(KTAP version \d+|1\.\.\d+)\s*$")
# The result of a suite. Their numbers go on from one module to the next.
_SUITE = re.compile(r"(ok|not ok) \d+( .*)?$")


class Records:
    """Takes records of /dev/kmsg, and knows those that it had before, and those that it missed."""

    def __init__(self) -> None:
        self._last: int | None = None
        self.lost = 0

    def take(self, record: str) -> list[Said]:
        """Return the lines of a record; nothing for one that has been taken, or is none."""
        match = _RECORD.match(record.rstrip("\n"))
        if match is None:
            return []
        number, time = int(match[1]), int(match[2]) / 1e6
        if self._last is not None:
            if number <= self._last:
                return []
            self.lost += number - self._last - 1
        self._last = number
        text = _ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), match[3])
        return [(time, line) for line in text.split("\n")]


def of_log(messages: Iterable[Message]) -> list[Said]:
    """Return the lines of the kernel's log."""
    return [(message.time, line) for message in messages for line in message.text.split("\n")]


def of_console(text: str) -> list[Said]:
    """Return the kernel's lines in what a console had."""
    matches = (_STAMP.search(line) for line in text.splitlines())
    return [(float(match[1]), match[2]) for match in matches if match is not None]


def behind(said: Sequence[Said], last: Said | None) -> Sequence[Said]:
    """Return what comes behind a line, which is the last one of these that is known; all of it without one."""
    if last is None:
        return said
    for number in range(len(said) - 1, -1, -1):
        if said[number] == last:
            return said[number + 1 :]
    return [line for line in said if line[0] > last[0]]


class Suites:
    """Makes one KTAP of what the kernel says of suites: some versions begin it only within each of them."""

    begin = "KTAP version 1"

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, line: str) -> str:
        """Return a line as it should be: suites are numbered from 1 on."""
        if _HEAD.match(line):
            return ""
        match = _SUITE.match(line)
        if match is None:
            return line
        self._count += 1
        return f"{match[1]} {self._count}{match[2] or ''}"
