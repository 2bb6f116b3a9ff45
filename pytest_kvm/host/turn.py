"""Whose turn is it? Who may take, who waits, and who is refused: nothing but arithmetic.

Nobody ever waits for somebody who waits for him:

- A test that holds machines does not wait, so the machines of tests are given back sooner or later.
- Machines of a session stay until it ends, which may take every other test of its run. So nobody waits for those of
  his own run, and a run that holds some waits for nobody else's either.
- Those who wait are served in the order in which they came, but for those who wait for a session to end: its tests
  must not stand in line behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto

from pytest_kvm.host.amounts import Amount, added
from pytest_kvm.host.record import Record, Scope, State


class Turn(Enum):
    """What becomes of a request."""

    TAKE = auto()
    """It fits, and nobody was there before."""
    ASK = auto()
    """It fits as soon as machines that nobody has asked for yet are given up."""
    WAIT = auto()
    """It waits for others."""
    TOO_LARGE = auto()
    """It would not even fit alone."""
    HOLDING = auto()
    """It does not fit, and must not wait: its test holds machines."""
    LASTING = auto()
    """It does not fit, and must not wait: its run holds machines until it ends."""


REFUSALS = (Turn.TOO_LARGE, Turn.HOLDING, Turn.LASTING)


def turn(wanted: Record, others: Iterable[Record], *, at_once: bool = False) -> Turn:
    """Return what becomes of a request now, beside the ``others`` in the ledger.

    ``at_once`` is one that must not wait, as those of a test that holds machines must not.
    """
    others = list(others)
    if not wanted.limits.hold(Amount(), wanted.amount):
        return Turn.TOO_LARGE
    held = [record for record in others if record.state is State.HELD]
    holding = at_once or holds(wanted, held)
    if (holding or not _before(wanted, others)) and _fits(wanted, held):
        prepared = [record for record in others if record.state is State.PREPARED]
        return Turn.TAKE if _fits(wanted, [*held, *prepared]) else Turn.ASK
    if holding:
        return Turn.HOLDING
    if any(record.run == wanted.run for record in _lasting(held)) and not _fits(wanted, _lasting(held)):
        return Turn.LASTING
    return Turn.WAIT


def holds(wanted: Record, others: Iterable[Record]) -> bool:
    """Return whether the test that asks has machines already; a process runs one test at a time."""
    return any(
        record.process == wanted.process and record.scope is Scope.TEST and record.state is State.HELD
        for record in others
    )


def spare(wanted: Record, others: Sequence[Record]) -> bool:
    """Return whether there is room for a machine that nobody has asked for yet."""
    taken = [record for record in others if record.state is not State.WAITING]
    return _fits(wanted, taken) and not _before(wanted, others)


def _before(wanted: Record, others: Iterable[Record]) -> bool:
    """Return whether others wait who came before, and not for the end of a session."""
    others = list(others)
    lasting = _lasting(record for record in others if record.state is State.HELD)
    return any(
        record.state is State.WAITING and record.since < wanted.since and _fits(record, lasting) for record in others
    )


def _lasting(held: Iterable[Record]) -> list[Record]:
    return [record for record in held if record.scope is Scope.SESSION]


def _fits(wanted: Record, beside: Iterable[Record]) -> bool:
    return wanted.limits.hold(added(record.amount for record in beside), wanted.amount)
