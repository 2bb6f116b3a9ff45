"""From lines to reports."""

from __future__ import annotations

import re
from typing import NamedTuple

from pytest_kvm.guest.recognisers.line import Start, starts
from pytest_kvm.guest.recognisers.recogniser import Recogniser
from pytest_kvm.guest.recognisers.report import Report
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.guest.recognisers.table import NEW_KERNEL, NEW_MACHINE, RECOGNISERS

# What stands in front of a report's first message.
BANNER = re.compile(r"={8,}\Z")
# Lines after a report of which a panic can still be the consequence.
_AFTERMATH = 64
# Messages that are known again when they are printed again.
_REMEMBERED = 512
_GROUP = re.compile(r"\(\?P<\w+>")
# One pattern for the beginnings of all reports, which is faster than one after the other.
_ANY = re.compile("|".join(f"(?:{_GROUP.sub('(?:', row.begins.pattern)})" for row in RECOGNISERS))


class _Beginning(NamedTuple):
    start: Start
    row: Recogniser
    found: re.Match[str]


class Reader:
    """Makes reports of lines.

    Messages of the kernel carry a time or do not, as printk.time says. A kernel is known to write times once it has
    introduced itself with one; from then on a line without a time is not its message, but a program's that quotes one.
    """

    def __init__(self) -> None:
        self._report: Report | None = None
        # The report before, and what came after it.
        self._last: Report | None = None
        self._since: list[str] = []
        self._banner: list[str] = []
        self._timed = False
        self._seen: dict[tuple[str, str], None] = {}

    @property
    def idle(self) -> bool:
        """Whether lines can be left out that do not begin anything."""
        return self._report is None and self._last is None

    @property
    def pending(self) -> Splat | None:
        """The report that has begun, as far as it has come."""
        return self._report.splat if self._report and not self._report.replayed else None

    def read(self, line: str) -> list[Splat]:
        """Take the next line; return the reports that are complete with it."""
        first = next(starts(line))
        beginning = self._beginning(line)
        if beginning:
            done = self._begin(line, beginning)
        elif NEW_KERNEL.match(line, first.text) or NEW_MACHINE.match(line, first.text):
            done = self._start_anew(timed=first.time is not None)
        else:
            done = self._continue(line)
        self._banner = [line[first.first :]] if BANNER.match(line, first.text) else []
        return done

    def begins(self, line: str) -> bool:
        """Return whether a line would begin a report, or bring the next part of one."""
        return self._beginning(line) is not None

    def end(self) -> list[Splat]:
        """End the report that has begun."""
        if self._report:
            self._report.cut = True
        return self._close()

    def _close(self) -> list[Splat]:
        report, self._report = self._report, None
        if report is None:
            return []
        self._last, self._since = report, []
        return [] if report.replayed else [report.splat]

    def _start_anew(self, *, timed: bool) -> list[Splat]:
        done = self._close()
        self._last = None
        self._timed = timed
        self._seen.clear()
        return done

    def _beginning(self, line: str) -> _Beginning | None:
        for start in starts(line):
            if _ANY.match(line, start.text):
                text = line[start.text :]
                for row in RECOGNISERS:
                    if self._believes(row, start) and (found := row.begins.match(text)):
                        return _Beginning(start, row, found)
        return None

    def _believes(self, row: Recogniser, start: Start) -> bool:
        if row.kernel and self._timed and start.time is None:
            return False
        return bool(row.cues) or (self._report is not None and self._report.accepts(row))

    def _begin(self, line: str, beginning: _Beginning) -> list[Splat]:
        start, row, found = beginning
        printed = line[start.first :]
        replayed = self._was_seen(start, found.string)
        if self._report and self._report.accepts(row):
            self._report.begin(row, found, printed)
            return self._close() if self._report.ended else []
        if self._last and self._last.cut and self._last.accepts(row):
            # Its first part was handed out.
            self._last.joined.add(row.name)
            return []
        done = self._close()
        before = self._cause(start) if row.name == "panic" else []
        timed = start.time is not None
        self._report = Report(row, timed=timed, replayed=replayed, before=[*before, *self._banner])
        self._report.begin(row, found, printed)
        self._last = None
        return [*done, *self._close()] if self._report.ended else done

    def _cause(self, start: Start) -> list[str]:
        last = self._last
        if last is None or last.timed != (start.time is not None):
            return []
        return [*last.lines, *self._since]

    def _was_seen(self, start: Start, text: str) -> bool:
        if start.time is None:
            return False
        key = (start.time, text)
        seen = key in self._seen
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return seen

    def _continue(self, line: str) -> list[Splat]:
        *_, start = starts(line)
        report = self._report
        if report is None:
            self._follow(line, start)
            return []
        if report.timed and start.time is None:
            report.pass_by()
        elif report.timed:
            report.add(line[start.text :], line[start.first :])
        else:
            report.add(line, line)
        return self._close() if report.ended else []

    def _follow(self, line: str, start: Start) -> None:
        if self._last is None:
            return
        if self._last.timed == (start.time is not None):
            self._since.append(line[start.first :] if start.time else line)
        if len(self._since) >= _AFTERMATH:
            self._last = None
