"""A report that is being printed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_kvm.guest.recognisers.frames import culprit, place, plain
from pytest_kvm.guest.recognisers.line import Start
from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source
from pytest_kvm.guest.recognisers.shapes import BELONGS
from pytest_kvm.guest.recognisers.splat import Splat

MOST_BYTES = 64 << 10
# Messages that may be somebody else's in the middle of a report; with more of them, it is over.
_PATIENCE = 16
# Lines of programs between those of the kernel.
_FOREIGN_PATIENCE = 200
# Enough for a title.
_MOST_FUNCTIONS = 64


class Report:
    """A report of which something has come, and maybe more will.

    ``timed`` says that its messages carry the time, ``replayed`` that it was printed before, ``ended`` that it is
    complete. ``joined`` are the names of the rows of which it has a line.
    """

    def __init__(self, row: Recogniser, *, timed: bool, replayed: bool, before: list[str]) -> None:
        self.row = row
        self.timed = timed
        self.replayed = replayed
        self.joined: set[str] = set()
        self.ended = False
        self._known: dict[str, str] = {}
        self._functions: list[str] = []
        self._lines: list[str] = []
        self._held: list[str] = []
        self._size = self._count = self._foreign = 0
        self._held.extend(before)

    def accepts(self, row: Recogniser) -> bool:
        """Return whether a line of this row continues the report; the same one cannot do so twice."""
        return row.name not in self.joined and self.row.name in row.joins | row.takes_over

    def begin(self, row: Recogniser, found: re.Match[str], printed: str) -> None:
        """Add the line that begins the report, or one with which a row that it accepts would begin one."""
        if self.row.name in row.takes_over:
            self.row = row
            self._known.clear()
        self.joined.add(row.name)
        if row is self.row:
            self._learn(found)
        self.add(found.string, printed, belongs=True)

    def _learn(self, found: re.Match[str]) -> None:
        for name, value in found.groupdict().items():
            if value:
                self._known.setdefault(name.rstrip("23"), plain(value) if name.endswith("function") else value)

    def may_have(self, start: Start) -> bool:
        """Return whether a line can be one of the report's; what a program prints is in the way of a timed kernel's."""
        if self.row.source is Source.ANYONE:
            return start.time is None
        return start.time is not None or not self.timed

    def add(self, text: str, printed: str, *, belongs: bool = False) -> None:
        """Add a message, if it can be one of the report's; ``printed`` is the message with its time."""
        self._count += 1
        details = self.row.details
        if details and (found := details.search(text)):
            self._learn(found)
            belongs = True
        function = place(text)
        if function and len(self._functions) < _MOST_FUNCTIONS:
            self._functions.append(function)
        last = self.row.ends is not None and self.row.ends.search(text) is not None
        self._held.append(printed)
        if belongs or last or function or self.row.source is Source.ANYONE or BELONGS.match(text):
            self._keep()
        self.ended = last or len(self._held) > _PATIENCE or self._count >= self.row.span

    def pass_by(self) -> None:
        """Take note of a line that is a program's."""
        self._foreign += 1
        self.ended = self._foreign > _FOREIGN_PATIENCE

    def _keep(self) -> None:
        self._foreign = 0
        for line in self._held:
            self._size += len(line) + 1
            if self._size <= MOST_BYTES:
                self._lines.append(line)
        self._held.clear()

    @property
    def lines(self) -> list[str]:
        """The lines that belong to it."""
        return list(self._lines)

    @property
    def splat(self) -> Splat:
        """The report as far as it has come."""
        known = dict(self._known)
        function = culprit(self._places(), self.row.skips)
        if function:
            known["function"] = function
        return Splat(self.row.kind, self.row.titled(known), "\n".join(self._lines), self.row.fatal)

    def _places(self) -> Iterator[str]:
        if "function" in self._known:
            yield self._known["function"]
        yield from self._functions
