"""A request for shares of the budget, in the ledger while it waits for its turn."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_kvm.host import telling
from pytest_kvm.host.amounts import Amount, added
from pytest_kvm.host.bell import Bell
from pytest_kvm.host.ledger import Ledger, Page
from pytest_kvm.host.process import Process
from pytest_kvm.host.record import Record, Scope, State
from pytest_kvm.host.turn import REFUSALS, Turn, holds, turn
from pytest_kvm.waiting import Deadline

# Seconds for other processes to give up machines that nobody has asked for: it takes some milliseconds.
_PATIENCE = 10.0
# Seconds after which one who waits looks again: who removes the ledger's files by hand rings no bell.
_DOUBT = 60.0


@dataclass(frozen=True)
class Holder:
    """Who asks for machines: a ``test`` by its id, or in words; ``lasting`` ones stay until the session ends."""

    test: str = ""
    lasting: bool = False

    @property
    def scope(self) -> Scope:
        """How long its machines stay."""
        return Scope.SESSION if self.lasting else Scope.TEST


NOBODY = Holder()


@dataclass(frozen=True)
class Wanted:
    """A machine that is asked for, as ``label`` calls it, and what it takes."""

    label: str
    amount: Amount


class Request:
    """A request of all that is ``wanted`` together. ``at_once`` is one that does not wait for others."""

    def __init__(self, ledger: Ledger, wanted: Sequence[Wanted], holder: Holder, *, at_once: bool) -> None:
        self._ledger = ledger
        self._wanted = wanted
        self._holder = holder
        self._at_once = at_once
        amount = added(each.amount for each in wanted)
        self._record = ledger.record(amount, scope=holder.scope, state=State.WAITING)
        self._labels = [each.label for each in wanted]
        self._told = False

    def granted(self, report: Callable[[str], None]) -> list[Record]:
        """Return the entries of the machines, in order, when it is their turn; ``report`` is told of a wait.

        Raises BudgetExceeded when that cannot be waited for, OSError when the ledger cannot be changed.
        """
        with self._ledger.opened() as page:
            outcome = self._outcome(page)
            if outcome is Turn.TAKE:
                return self._enter(page)
        patience = Deadline(_PATIENCE)
        with self._queued() as bell:
            while True:
                bell.silence()
                with self._ledger.opened() as page:
                    outcome = self._outcome(page)
                    if outcome is Turn.ASK and patience.expired and self._must_not_wait(page):
                        outcome = Turn.HOLDING
                    if outcome is Turn.TAKE:
                        return self._enter(page)
                    if outcome in REFUSALS:
                        raise telling.refusal(outcome, self._labels, self._holder.test, self._record, page)
                    if outcome is Turn.ASK:
                        page.ask()
                    line = self._line(page) if outcome is Turn.WAIT else ""
                    processes = {record.process for record in page.records} - {self._ledger.process}
                if line:
                    report(line)
                _await(bell, processes, patience.remaining() if outcome is Turn.ASK else None)

    def _outcome(self, page: Page) -> Turn:
        return turn(self._record, page.records, at_once=self._at_once)

    def _must_not_wait(self, page: Page) -> bool:
        return self._at_once or holds(self._record, page.records)

    def _line(self, page: Page) -> str:
        if self._told:
            return ""
        self._told = True
        return telling.waiting(telling.about(self._labels, self._holder.test), self._record, page)

    def _enter(self, page: Page) -> list[Record]:
        """Enter each machine, none of them if one cannot be."""
        entered = []
        try:
            for each in self._wanted:
                record = self._ledger.record(each.amount, scope=self._holder.scope, state=State.HELD)
                entered.append(record)
                page.add(record, telling.about([each.label], self._holder.test))
        except BaseException:
            for record in entered:
                page.remove(record)
            raise
        page.remove(self._record)
        page.ring()
        return entered

    @contextlib.contextmanager
    def _queued(self) -> Iterator[Bell]:
        """Have the request in the ledger, with a bell, during the block."""
        with contextlib.ExitStack() as stack:
            with self._ledger.opened() as page:
                bell = self._ledger.bell(self._record)
                stack.callback(bell.close)
                stack.callback(self._withdraw)
                page.add(self._record, telling.about(self._labels, self._holder.test))
            yield bell

    def _withdraw(self) -> None:
        with self._ledger.opened() as page:
            page.remove(self._record)
            page.ring()


def _await(bell: Bell, processes: Iterable[Process], seconds: float | None) -> None:
    """Wait until the bell is rung, or one of the processes ends."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    with contextlib.ExitStack() as stack:
        for process in processes:
            descriptor = process.watched()
            if descriptor is None:
                return
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        poll.poll(1000 * (_DOUBT if seconds is None else seconds))
