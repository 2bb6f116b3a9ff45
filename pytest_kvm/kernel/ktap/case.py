"""One test case of a program that speaks KTAP, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """What became of a case: KTAP's outcomes and directives, and what happens when the program does not get to its end.

    ``CRASHED`` is the case that ran when the guest, or the way to it, was lost; ``NOT_RUN`` one that the plan
    announced, and of which nothing came.
    """

    PASSED = "passed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"
    CRASHED = "crashed"
    NOT_RUN = "not run"

    @property
    def good(self) -> bool:
        """Whether the case is no reason to fail."""
        return self in (Outcome.PASSED, Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case: its ``name`` with those that it is in before it (``suite/case``), and what became of it.

    ``reason`` is what stands behind the directive, or what is known otherwise. ``log`` is what was said between the end
    of the case before and its own. ``seconds`` is how long that took, of the host's clock; None when nobody looked.
    """

    name: str
    outcome: Outcome
    reason: str = ""
    log: str = ""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class KTAPResult:
    """All cases of a run, in the order in which they ended, and what was wrong with what was said.

    ``problems`` are lines such as ``the plan says 3 cases, and 2 came``. ``returncode`` is the program's, None when it
    was lost. ``text`` is all that it said.
    """

    cases: Sequence[Case]
    problems: Sequence[str]
    returncode: int | None
    text: str

    @property
    def failed(self) -> list[Case]:
        """The cases that failed, crashed, or did not run."""
        return [case for case in self.cases if not case.outcome.good]

    @property
    def good(self) -> bool:
        """Whether no case failed and nothing was wrong; what the program ended with is not looked at."""
        return not self.failed and not self.problems

    def __getitem__(self, name: str) -> Case:
        """Return the case of a name; raises KeyError, with those that are there."""
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"there is no case {name!r}; there are {', '.join(case.name for case in self.cases) or 'none'}")

    def __str__(self) -> str:
        counts = {outcome: sum(case.outcome is outcome for case in self.cases) for outcome in Outcome}
        return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count) or "no cases"


class Observer(Protocol):
    """Who is told of cases as they end."""

    def __call__(self, case: Case) -> bool:
        """Take notice of a case; return whether a failure of it is reported now, and nobody else need do so."""
        ...
