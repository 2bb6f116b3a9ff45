"""From lines, as they come, to cases, as they end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from pytest_kvm.kernel.ktap.case import Case, Outcome
from pytest_kvm.kernel.ktap.level import Level
from pytest_kvm.kernel.ktap.lines import BailOut, Line, Plan, Result, Subtest, Version, classify, pieces

# What is kept of what a case says: the end of it, in characters.
_LOG = 64 << 10
# TAP 14's data about the result before it.
_YAML = re.compile(r"\s+---\s*$")
_YAML_END = re.compile(r"\s+\.\.\.\s*$")
_INDENT = re.compile(r"(?:# )*[ \t]*")
# More is no nesting, but rubbish.
_DEEPEST = 32
# What is wrong a hundred times is told often enough.
_MOST_PROBLEMS = 100
# Those that did not run are listed one by one, unless the plan announced any number.
_MOST_NOT_RUN = 1000


class Parser:
    """Takes lines without their ends; ``tell`` is called with each case when it has ended.

    A case is one that has none in it. One that has is a case, too, when it fails although none in it did. ``planned``
    says that there should be a plan of all: the kernel has none for its tests.
    """

    def __init__(
        self, tell: Callable[[Case], None], *, planned: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._planned = planned
        self._clock = clock
        self._levels: list[Level] = []
        # What has been said since the last case ended, and when that was.
        self._log: list[str] = []
        self._size = 0
        self._began = clock()
        # The case that has ended last: data about it may follow.
        self._pending: Case | None = None
        self._yaml = False
        self._announced = ""
        self._torn = ""
        self._bailed: str | None = None
        # The level that has been closed last: the next result is of what it is in.
        self._inner: Level | None = None
        self.problems: list[str] = []

    def feed(self, line: str) -> None:
        """Take one line."""
        parts = pieces(line.rstrip("\r\n"))
        for number, (text, stamped) in enumerate(parts):
            last = number == len(parts) - 1
            if not stamped and not last and text:
                self._torn += text  # the rest of it comes later
                continue
            whole = text
            if not stamped:
                whole, self._torn = self._torn + text, ""
            self._take(whole, stamped)

    def _take(self, text: str, stamped: bool) -> None:
        if self._in_yaml(text):
            return
        found, line, prefix = self._place(text, stamped)
        if line is None or self._bailed is not None:
            self._keep(text)
        elif isinstance(line, Version):
            self._open(found, prefix, stamped, known=line.known, ktap="KTAP" in text)
        elif isinstance(line, Subtest):
            self._announce(found, line, prefix, stamped)
        elif isinstance(line, BailOut):
            self._bailed = line.reason
            self._problem(f"it bailed out{': ' if line.reason else ''}{line.reason}")
        else:
            self._close_to(found)
            level = self._levels[-1]
            if isinstance(line, Plan):
                self._plan(level, line)
            else:
                self._result(level, line)

    def _place(self, text: str, stamped: bool) -> tuple[int, Line, str]:
        """Return in how many levels a line is, what it is, and its whole prefix; None is one of nobody's."""
        indent = _INDENT.match(text)
        assert indent is not None
        # What is behind "# " may be the next level's, or this one's own remark.
        for prefix in dict.fromkeys((indent[0], re.sub(r"# $", "", indent[0]))):
            line = classify(text[len(prefix) :])
            if line is None:
                continue
            depth = next((n for n, level in enumerate(self._levels, 1) if level.prefix == prefix), 0)
            if isinstance(line, Version | Subtest):
                return depth, line, prefix
            if depth and self._levels[depth - 1].stamped == stamped:
                if isinstance(line, Result) and line.number is None and self._levels[depth - 1].ktap:
                    continue
                return depth, line, prefix
            if self._opens_silently(prefix, stamped):
                self._push(prefix, stamped)
                return len(self._levels), line, prefix
            if isinstance(line, BailOut):
                return depth, line, prefix
        return 0, None, ""

    def _opens_silently(self, prefix: str, stamped: bool) -> bool:
        """Return whether results may begin here without a version: at the top, and when they are indented."""
        if not self._levels:
            return not prefix and not stamped
        above = self._levels[-1]
        return above.stamped == stamped and prefix.startswith(above.prefix) and not prefix[len(above.prefix) :].strip()

    def _open(self, depth: int, prefix: str, stamped: bool, *, known: bool, ktap: bool) -> None:
        if not known:
            self._problem("it speaks a version that is not known; what can be read is read")
        if depth:
            level = self._levels[depth - 1]
            if level.count or level.plan is not None:
                self._close_to(depth)
                self._problem("a second version line: several programs speak at once, or one after the other")
                return
        else:
            self._push(prefix, stamped)
        self._levels[-1].ktap = ktap

    def _push(self, prefix: str, stamped: bool) -> None:
        while self._levels and not prefix.startswith(self._levels[-1].prefix):
            self._close()
        if len(self._levels) < _DEEPEST:
            number = str(self._levels[-1].count + 1) if self._levels else ""
            self._levels.append(Level(prefix, self._announced or number, stamped=stamped))
            self._announced = ""

    def _announce(self, depth: int, line: Subtest, prefix: str, stamped: bool) -> None:
        """Take the name of what is run: of this level, if nothing has come in it yet, else of the next one."""
        self._keep(f"{prefix}# {line.name}")
        level = self._levels[depth - 1] if depth else None
        if line.inside and level is not None and depth > 1 and not level.count and level.plan is None:
            level.announced = line.name
        elif line.inside and level is None and self._opens_silently(prefix, stamped):
            self._announced = line.name
            self._push(prefix, stamped)
        else:
            self._announced = line.name

    def _plan(self, level: Level, plan: Plan) -> None:
        if level.plan is not None:
            self._problem(f"a second plan, of {plan.count}, where there is one of {level.plan.count}")
            return
        level.plan = plan
        if plan.skipped and not level.count:
            self._end(self._name(""), Outcome.SKIPPED, plan.reason)

    def _result(self, level: Level, result: Result) -> None:
        for wrong in level.take(result):
            self._problem(wrong)
        inner, self._inner = self._inner, None
        announced, self._announced = self._announced, ""
        name = self._name(result.name or announced or str(result.number or level.count))
        if inner is None:
            self._end(name, result.outcome, result.reason)
        elif not result.outcome.good and not inner.failed:
            self._end(name, result.outcome, result.reason or "it fails, and no case in it does")
        elif not inner.cases:
            self._end(name, result.outcome, result.reason)
        else:  # what was said since the last case in it is about all of them
            self._restart()
        level.failed |= not result.outcome.good

    def _name(self, name: str) -> str:
        """Return the name of a case with those of the levels that it is in."""
        above = [level.announced for level in self._levels if level.announced]
        if self._levels and not name:
            return "/".join(above) or "all"
        return "/".join([*above, name])

    # What is said

    def _keep(self, text: str) -> None:
        self._log.append(text)
        self._size += len(text) + 1
        while self._size > _LOG and len(self._log) > 1:
            self._size -= len(self._log.pop(0)) + 1

    def _in_yaml(self, text: str) -> bool:
        """Take in a line of the data behind a result."""
        if self._pending is None:
            return False
        if not self._yaml:
            if _YAML.match(text):
                self._yaml = True
                return self._append(text)
            self._flush()
            return False
        if _YAML_END.match(text):
            self._append(text)
            self._flush()
            return True
        return self._append(text)

    def _append(self, text: str) -> bool:
        case = self._pending
        assert case is not None
        if len(case.log) < _LOG:
            log = f"{case.log}\n{text}" if case.log else text
            self._pending = Case(
                name=case.name, outcome=case.outcome, reason=case.reason, log=log, seconds=case.seconds
            )
        return True

    def _end(self, name: str, outcome: Outcome, reason: str) -> None:
        self._flush()
        seconds = self._clock() - self._began
        self._pending = Case(name=name, outcome=outcome, reason=reason, log="\n".join(self._log), seconds=seconds)
        self._restart()
        for level in self._levels:
            level.cases += 1
            level.failed |= not outcome.good

    def _restart(self) -> None:
        self._log.clear()
        self._size, self._began = 0, self._clock()

    def _flush(self) -> None:
        case, self._pending, self._yaml = self._pending, None, False
        if case is not None:
            self._tell(case)

    def _problem(self, text: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            where = "/".join(level.announced for level in self._levels if level.announced)
            self.problems.append(f"{where}: {text}" if where else text)

    # Ends

    def _close_to(self, depth: int) -> None:
        """Close the levels below one: their results are complete."""
        while len(self._levels) > max(depth, 1):
            self._close()

    def _close(self) -> None:
        for wrong in self._levels[-1].counted(top=False):
            self._problem(wrong)
        self._inner = self._levels.pop()

    def finish(self, *, lost: str = "", late: bool = False) -> None:
        """Take notice of the end; ``lost`` says what became of the guest, or the way to it, if it is not a good one.

        ``late`` says that the program was ended because it took too long.
        """
        if self._torn:
            self._take(self._torn, stamped=False)
        self._flush()
        outcome = Outcome.TIMEOUT if late else Outcome.CRASHED
        running = bool(lost)
        if not self._levels and running:
            self._end(self._announced or "1", outcome, lost)
            running = False
        elif not self._levels and self._bailed is None:
            self._problem("it says no KTAP and no TAP")
        while self._levels:
            level = self._levels[-1]
            if not lost and self._bailed is None:
                for wrong in level.counted(top=self._planned and len(self._levels) == 1):
                    self._problem(wrong)
            if running and (level.missing or level.plan is None or level.unfinished):
                self._end(self._running(level), outcome, lost)
                level.unfinished = 1
                running = False
            self._not_run(level, lost)
            self._levels.pop()
            if self._levels:
                self._levels[-1].unfinished = 1
                if level.missing == 0 and self._announced == "":
                    self._announced = level.announced
        if running:
            self._problem(f"after its last case: {lost}")
        self._flush()

    def _running(self, level: Level) -> str:
        """Return the name of the case that runs, as far as it is known."""
        name = self._announced or str(level.count + 1)
        self._announced = ""
        return self._name(name)

    def _not_run(self, level: Level, lost: str) -> None:
        why = "it bailed out" if self._bailed is not None else lost or "the program ended"
        first = level.count + level.unfinished + 1
        for number in range(first, first + min(level.missing, _MOST_NOT_RUN)):
            self._end(self._name(str(number)), Outcome.NOT_RUN, f"{why}, before it")
        if level.missing > _MOST_NOT_RUN:
            self._problem(f"{level.missing - _MOST_NOT_RUN} more did not run")
