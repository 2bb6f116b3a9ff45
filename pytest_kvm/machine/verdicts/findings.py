"""What went wrong in a machine, in order, and what of it tests said would come."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_kvm.machine.verdicts.finding import Finding
from pytest_kvm.waiting import Watch

# A guest can complain without end; who is told of so many needs no more, but for what ends it.
_LIMIT = 1000


@dataclass(eq=False)
class Expectation:
    """What a test says will come: something of these kinds that matches the pattern.

    ``findings`` is what has come of it. ``fatal`` says that the machine may go away under what runs in it.
    """

    what: str
    accepts: Callable[[Finding], bool]
    pattern: re.Pattern[str] | None
    fatal: bool
    findings: list[Finding] = field(default_factory=list)

    def takes(self, finding: Finding) -> bool:
        """Return whether the finding is what was meant."""
        return self.accepts(finding) and (self.pattern is None or finding.matches(self.pattern))


class Findings:
    """The findings of one machine, over all its starts; usable from any thread."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._findings: list[Finding] = []
        self._expectations: list[Expectation] = []
        # What ended the machine: all that follows is its consequence.
        self.dead: Finding | None = None

    def add(self, finding: Finding, *, optional: bool = False, goes_on: bool = False) -> Finding | None:
        """Take a finding down; an ``optional`` one matters only to a test that expects it.

        It ends all waits if it is fatal, unless it was expected and the guest ``goes_on`` after it. Returns it, or None
        if it does not count.
        """
        with self._watch:
            if self.dead is not None or (len(self._findings) >= _LIMIT and not finding.fatal):
                return None
            for expectation in reversed(self._expectations):
                if expectation.takes(finding):
                    finding.expected = True
                    expectation.findings.append(finding)
                    break
            if optional and not finding.expected:
                return None
            self._findings.append(finding)
            if finding.fatal and not (finding.expected and goes_on):
                self.dead = finding
                self._watch.fail(finding.error)
            self._watch.notify()
            return finding

    def revive(self) -> None:
        """The machine begins anew."""
        with self._watch:
            if self.dead is not None:
                self._watch.withdraw(self.dead.error)
                self.dead = None

    def accept(self, kind: str) -> None:
        """Somebody wants what has just been found, if its kind is this one."""
        with self._watch:
            if self.dead is not None and self.dead.kind == kind:
                self.dead.expected = True
                self.revive()

    def open(self, expectation: Expectation) -> None:
        """Expect something from now on."""
        with self._watch:
            self._expectations.append(expectation)
            self._watch.forgiving += expectation.fatal

    def close(self, expectation: Expectation) -> None:
        """Expect it no longer."""
        with self._watch:
            self._expectations.remove(expectation)
            self._watch.forgiving -= expectation.fatal

    @property
    def all(self) -> list[Finding]:
        """All that was found, oldest first."""
        with self._watch:
            return list(self._findings)

    def untold(self) -> list[Finding]:
        """Return what nobody expected, and nobody has been told of."""
        with self._watch:
            return [finding for finding in self._findings if not (finding.expected or finding.told)]

    def tell_all(self) -> None:
        """Somebody gets an error that stands for all of it."""
        with self._watch:
            for finding in self._findings:
                finding.told = finding.told or finding.fatal

    def tell(self, error: BaseException) -> None:
        """Who gets this error has been told of what is behind it."""
        with self._watch:
            for finding in self._findings:
                finding.told = finding.told or finding.is_behind(error)
