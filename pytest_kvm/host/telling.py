"""What people are told about the budget: who has what, who waits, and why somebody does not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from pytest_kvm.errors import BudgetExceeded
from pytest_kvm.host.amounts import Amount, Limits, added
from pytest_kvm.host.ledger import Page
from pytest_kvm.host.record import Record, State
from pytest_kvm.host.turn import Turn

# A line at the terminal names no more of them.
_MOST = 3
_REASONS = {
    Turn.HOLDING: "It does not wait for others, because its test has machines already, for which others may wait.",
    Turn.LASTING: "It does not wait for that, because this run has machines until it ends itself, for which others may "
    "wait.",
}
_HINTS = {
    Turn.HOLDING: "declare all machines of the test in its markers: these are taken together, and waited for",
    Turn.LASTING: "let fewer machines stay for the whole session (vm_session_factory), or run fewer workers (-n)",
}
_LARGER = "or raise the budget: --kvm-memory-budget=SIZE, --kvm-max-vcpus=N, --kvm-max-machines=N"


def about(labels: Sequence[str], test: str) -> str:
    """Return what a share, or several, are called, and whose they are."""
    *most, last = labels
    called = f"{', '.join(most)} and {last}" if most else last
    return f"{called} of {test}" if test else called


def holders(page: Page) -> list[str]:
    """Return who has shares, the first one first."""
    taken = sorted(_taken(page.records), key=lambda record: record.since)
    return [f"{page.about(record) or 'a machine'} ({record.amount}, {_whose(record)})" for record in taken]


def _whose(record: Record) -> str:
    made = time.time() - (time.monotonic_ns() - record.since) / 1e9
    return f"pid {record.process.pid}, since {time.strftime('%H:%M:%S', time.localtime(made))}"


def _taken(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.state is not State.WAITING]


def waiting(who: str, request: Record, page: Page) -> str:
    """Return the line about a request that waits."""
    line = f"{who} waits for {request.amount}: {_usage(request.limits, page)}"
    names = holders(page)
    if names:
        more = [f"{len(names) - _MOST} more"] if len(names) > _MOST else []
        line += f" by {', '.join([*names[:_MOST], *more])}"
    before = sum(record.state is State.WAITING and record.since < request.since for record in page.records)
    return f"{line}; {before} came before" if before else line


def _usage(limits: Limits, page: Page) -> str:
    return f"{limits.usage(added(record.amount for record in _taken(page.records)))} are taken"


def refusal(outcome: Turn, labels: Sequence[str], test: str, request: Record, page: Page) -> BudgetExceeded:
    """Return the error of a request that is refused."""
    amount, limits = request.amount, request.limits
    subject = f"{about(labels, test)} {'takes' if len(labels) == 1 else 'take'} {amount}"
    if outcome is Turn.TOO_LARGE:
        lacking = " and ".join(limits.exceeded(Amount(), amount))
        message = f"{subject}: more {lacking} than all machines together may have here ({limits})"
        return _error(message, f"let it be smaller (memory=), {_LARGER}", amount, [])
    names = holders(page)
    message = f"{subject}, and {_usage(limits, page)}. {_REASONS[outcome]}"
    message = "\n".join([message, "Taken by:", *(f"- {name}" for name in names)])
    return _error(message, f"{_HINTS[outcome]}; {_LARGER}", amount, names)


def _error(message: str, hint: str, amount: Amount, names: Sequence[str]) -> BudgetExceeded:
    return BudgetExceeded(
        message, hint=hint, memory=amount.memory, vcpus=amount.vcpus, machines=amount.machines, holders=names
    )
