"""One level of nested results: what its plan says, and what has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_kvm.kernel.ktap.lines import Plan, Result


@dataclass
class Level:
    """The results behind one ``prefix`` (blanks, or kselftest's ``# ``).

    ``announced`` is the name of what is run, where that was said before it; ``ktap`` says that numbers are required.
    ``stamped`` says that its lines are printed by the kernel, with their time.
    """

    prefix: str
    announced: str = ""
    ktap: bool = False
    stamped: bool = False
    plan: Plan | None = None
    count: int = 0
    # The number that the next result should have, and those that there were.
    expected: int = 1
    numbers: set[int] = field(default_factory=set)
    failed: bool = False
    cases: int = 0
    # One whose own results had come, or had not all come, when everything ended.
    unfinished: int = 0

    def take(self, result: Result) -> list[str]:
        """Count a result; return what is wrong with its number."""
        self.count += 1
        number = result.number
        expected, self.expected = self.expected, self.expected + 1
        if number is None:
            return []
        twice = number in self.numbers
        self.numbers.add(number)
        self.expected = number + 1
        if twice:
            return [f"there are two cases of number {number}"]
        if number != expected:
            return [f"case {number} comes where {expected} should"]
        return []

    @property
    def missing(self) -> int:
        """How many cases the plan announced that have not come."""
        return max(0, self.plan.count - self.count - self.unfinished) if self.plan is not None else 0

    def counted(self, top: bool) -> list[str]:
        """Return what is wrong with the plan when no more results can come."""
        if self.plan is None:
            # The kernel's parameterised tests do not know how many they are.
            return [f"there is no plan; {self.count} cases came"] if top else []
        if self.plan.count == self.count or (self.plan.skipped and self.count == 0):
            return []
        plural = "" if self.plan.count == 1 else "s"
        return [f"the plan says {self.plan.count} case{plural}, and {self.count} came"]
