"""The budget that the machines of all sessions of one user share on this host: shares of it, and waiting for them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.host import telling
from pytest_kvm.host.amounts import Amount, Limits
from pytest_kvm.host.bell import Listener
from pytest_kvm.host.ledger import Ledger
from pytest_kvm.host.record import Record, Scope, State
from pytest_kvm.host.request import NOBODY, Holder, Request, Wanted
from pytest_kvm.host.turn import Turn, spare, turn

_log = logging.getLogger("pytest_kvm")


class Budget:
    """What this process takes of the host's budget; usable from any thread.

    ``directory`` has the ledger. With ``limits`` that limit nothing nothing is counted. ``run`` is what the processes
    of one pytest run have in common. ``report`` is told once about each wait; ``give_up`` is called, in a thread of its
    own, when machines that nobody has asked for yet stand in the way of others.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        *,
        run: str = "",
        report: Callable[[str], None],
        give_up: Callable[[], None],
    ) -> None:
        self._ledger = None if limits.unlimited else Ledger(directory, limits, run=run)
        self._report = report
        self._give_up = give_up
        self._lock = threading.Lock()
        self._listener: Listener | None = None

    def take(self, wanted: Sequence[Wanted], holder: Holder = NOBODY, *, at_once: bool = False) -> list[Share]:
        """Return a share for each machine, of all of them together; waits for others where nobody waits for us then.

        ``at_once`` never waits. Raises BudgetExceeded when they would not fit alone, or do not fit now and must not
        wait, as when the test has machines already; HostError when the ledger cannot be written.
        """
        if self._ledger is None:
            return [Share(self, None, each, holder) for each in wanted]
        with _counting():
            records = Request(self._ledger, wanted, holder, at_once=at_once).granted(self._report)
        return [Share(self, record, each, holder) for record, each in zip(records, wanted, strict=True)]

    def prepare(self, wanted: Wanted) -> Share | None:
        """Return a share for a machine that nobody has asked for yet, None if there is no room to spare.

        Its virtual CPUs are stopped, so they do not count. It is given up when others need the room.
        """
        if self._ledger is None:
            return Share(self, None, wanted, NOBODY)
        resting = Amount(wanted.amount.memory, 0, wanted.amount.machines)
        record = self._ledger.record(resting, scope=Scope.TEST, state=State.PREPARED)
        with _counting(), self._ledger.opened() as page:
            if not spare(record, page.records):
                return None
            self._listen(self._ledger)
            page.add(record, f"{wanted.label}, made ahead")
        return Share(self, record, wanted, NOBODY)

    def _listen(self, ledger: Ledger) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = Listener(ledger.asked(), self._give_up)

    def keep(self, share: Share, holder: Holder) -> bool:
        """Let a share of ``prepare()`` be the holder's, as if taken now; return False if others were there before."""
        if self._ledger is None or share.record is None:
            return True
        record = self._ledger.record(share.wanted.amount, scope=holder.scope, state=State.HELD)
        with _counting(), self._ledger.opened() as page:
            if turn(record, [other for other in page.records if other != share.record]) is not Turn.TAKE:
                return False
            page.add(record, telling.about([share.wanted.label], holder.test))
            page.remove(share.record)
            page.ring()
        share.record, share.holder = record, holder
        return True

    def release(self, record: Record) -> None:
        """Give a share back; when the ledger cannot be changed, it counts until the process ends."""
        if self._ledger is not None:
            try:
                with self._ledger.opened() as page:
                    page.remove(record)
                    page.ring()
            except OSError as error:
                _log.warning("the share of a machine is not given back in %s: %s", self._ledger.directory, error)

    def close(self) -> None:
        """Give back all shares; the machines must have been closed before."""
        with self._lock:
            listener, self._listener = self._listener, None
        try:
            with contextlib.ExitStack() as stack:
                if self._ledger is not None:
                    stack.callback(self._ledger.close)
                if listener is not None:
                    stack.callback(listener.close)
        except OSError as error:
            _log.warning("the ledger of what machines take is not left in order: %s", error)


class Share:
    """What one machine takes of the budget; ``record`` is its entry in the ledger, None when it is not counted."""

    def __init__(self, budget: Budget, record: Record | None, wanted: Wanted, holder: Holder) -> None:
        self.wanted = wanted
        self.record = record
        self.holder = holder
        self._budget = budget

    def keep(self, holder: Holder) -> bool:
        """Let a machine made ahead be the holder's; return False if others were there before."""
        return self._budget.keep(self, holder)

    def beside(self, purpose: str) -> Share:
        """Return a further share like this one, at once, for another QEMU of the same machine.

        ``purpose`` says what that is for, such as ``its snapshot``. Raises BudgetExceeded.
        """
        wanted = Wanted(f"{self.wanted.label} ({purpose})", self.wanted.amount)
        (share,) = self._budget.take([wanted], Holder(self.holder.test), at_once=True)
        return share

    def release(self) -> None:
        """Give it back; harmless when it was already."""
        record, self.record = self.record, None
        if record is not None:
            self._budget.release(record)


@contextlib.contextmanager
def _counting() -> Iterator[None]:
    """Turn trouble with the ledger into what a user can do about it."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"what machines take cannot be counted in {error.filename or 'the ledger'}: {error.strerror}",
            hint="make room there, or name another directory with PYTEST_KVM_CACHE; "
            "--kvm-memory-budget=off and --kvm-max-vcpus=off do without counting",
        ) from error
