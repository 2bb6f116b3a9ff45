"""From lines to reports."""

from __future__ import annotations

import re
from typing import NamedTuple

from pytest_kvm.guest.recognisers.line import Start, starts
from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source
from pytest_kvm.guest.recognisers.replay import Replay
from pytest_kvm.guest.recognisers.report import Report
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.guest.recognisers.table import BANNER, NEW_KERNEL, NEW_MACHINE, RECOGNISERS

# Lines in which the report is awaited that a banner announces.
_FRESH = 8
# Lines after a report of which a panic can still be the consequence.
_AFTERMATH = 64
_GROUP = re.compile(r"\(\?P<\w+>")
# One pattern for all that something begins with, which is faster than one after the other.
_ANY = re.compile(
    "|".join(
        f"(?:{_GROUP.sub('(?:', pattern.pattern)})"
        for pattern in [*(row.begins for row in RECOGNISERS), NEW_KERNEL, NEW_MACHINE]
    )
)


class _Beginning(NamedTuple):
    start: Start
    row: Recogniser
    found: re.Match[str]


class Reader:
    """Makes reports of lines.

    Messages of the kernel carry a time or do not, as printk.time says. A kernel is known to write times once it has
    introduced itself with one; from then on a line without a time is not its message, but a program's that quotes one.
    A message that is printed again with the same time is not a new one.
    """

    def __init__(self) -> None:
        self._report: Report | None = None
        # The report before, and what came after it.
        self._last: Report | None = None
        self._since: list[str] = []
        # What stands in front of a report's first message, and for how many lines that can be so.
        self._banner: list[str] = []
        self._fresh = 0
        # Whether the kernel writes times; None for one that has not introduced itself.
        self._timed: bool | None = None
        self._replay = Replay()
        # What a start has come to is told once: prompts are printed again and again.
        self._told: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether lines can be left out that do not begin anything."""
        return self._report is None and self._last is None and not self._banner

    @property
    def pending(self) -> Splat | None:
        """The report that has begun, as far as it has come."""
        return self._report.splat if self._report and not self._report.replayed else None

    def read(self, line: str) -> list[Splat]:
        """Take the next line; return the reports that are complete with it."""
        spots = starts(line)
        candidates = [spot for spot in spots if _ANY.match(line, spot.text)]
        beginning = self._beginning(line, candidates)
        if beginning:
            done = self._begin(line, beginning)
        elif candidates and NEW_KERNEL.match(line, candidates[-1].text):
            done = self._new_kernel(candidates[-1])
        elif candidates and NEW_MACHINE.match(line, candidates[-1].text):
            done = self._new_machine()
        else:
            done = self._continue(line, spots[-1])
        self._note_banner(line, spots[-1])
        return done

    def _note_banner(self, line: str, start: Start) -> None:
        if BANNER.match(line, start.text):
            self._banner, self._fresh = [line[start.first :]], _FRESH
        elif self._banner:
            self._fresh -= 1
            if not self._fresh:
                self._banner = []

    def begins(self, line: str) -> bool:
        """Return whether a line would begin a report, or be the next important part of one."""
        return self._beginning(line, starts(line)) is not None

    def end(self) -> list[Splat]:
        """End the report that has begun."""
        return self._close()

    def _close(self) -> list[Splat]:
        report, self._report = self._report, None
        if report is None:
            return []
        self._last, self._since = report, []
        return [] if report.replayed else [report.splat]

    def _new_kernel(self, start: Start) -> list[Splat]:
        # A program may quote the line with a time or without. What is known for certain is not forgotten: in doubt
        # messages without a time are believed.
        if start.time is None:
            self._timed = False
        elif self._timed is None:
            self._timed = True
        self._told.clear()
        return self._close()

    def _new_machine(self) -> list[Splat]:
        done = self._close()
        self._last = self._timed = None
        self._told.clear()
        self._replay.forget()
        return done

    def _beginning(self, line: str, spots: list[Start]) -> _Beginning | None:
        for spot in spots:
            text = line[spot.text :]
            for row in RECOGNISERS:
                if self._believes(row, spot) and (found := row.begins.match(text)):
                    return _Beginning(spot, row, found)
        return None

    def _believes(self, row: Recogniser, spot: Start) -> bool:
        if spot.time is None and (row.source is Source.TIMED_KERNEL or (row.source is Source.KERNEL and self._timed)):
            return False
        return bool(row.cues) or (self._report is not None and self._report.accepts(row))

    def _begin(self, line: str, beginning: _Beginning) -> list[Splat]:
        start, row, found = beginning
        printed = line[start.first :]
        replayed = self._was_there(start, row, found.string)
        if self._report and self._report.accepts(row):
            self._report.begin(row, found, printed)
            return self._close() if self._report.ended else []
        if self._last and self._last.accepts(row):
            # Its first part has been handed out.
            self._last.joined.add(row.name)
            return []
        done = self._close()
        timed = start.time is not None
        before = [*self._cause(row, timed=timed), *self._banner]
        self._banner = []
        self._report = Report(row, timed=timed, replayed=replayed, before=before)
        self._report.begin(row, found, printed)
        self._last = None
        return [*done, *self._close()] if self._report.ended else done

    def _was_there(self, start: Start, row: Recogniser, text: str) -> bool:
        if start.time is not None:
            return self._replay.again(start.time, text)
        if row.source is Source.ANYONE:
            told = row.name in self._told
            self._told.add(row.name)
            return told
        return False

    def _cause(self, row: Recogniser, *, timed: bool) -> list[str]:
        """Return the lines of the report whose consequence a panic is."""
        last = self._last
        if not row.fatal or row.source is not Source.KERNEL or last is None or last.row.fatal or last.timed != timed:
            return []
        return [*last.lines, *self._since]

    def _continue(self, line: str, start: Start) -> list[Splat]:
        report = self._report
        if report is None:
            self._follow(line, start)
            return []
        if not report.may_have(start):
            report.pass_by()
        elif start.time is None:
            report.add(line, line)
        else:
            report.add(line[start.text :], line[start.first :])
        return self._close() if report.ended else []

    def _follow(self, line: str, start: Start) -> None:
        if self._last is None:
            return
        if not self._last.timed:
            self._since.append(line)
        elif start.time is not None:
            self._since.append(line[start.first :])
        if len(self._since) >= _AFTERMATH:
            self._last = None
