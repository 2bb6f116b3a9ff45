"""One entry of the ledger: who has, or waits for, how much. Its name says all of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_kvm.host.amounts import Amount, Limits
from pytest_kvm.host.process import Process

_FIELDS = 8


class State(Enum):
    """What an entry is: a share that is held, one of a machine that nobody has asked for yet, a request that waits."""

    HELD = "held"
    PREPARED = "prepared"
    WAITING = "waiting"


class Scope(Enum):
    """How long machines stay: until a test ends, or until a session does."""

    TEST = "test"
    SESSION = "session"


@dataclass(frozen=True, kw_only=True)
class Record:
    """An entry.

    ``process`` is whose it is, ``run`` what the processes of one pytest run have in common. ``since`` is when it was
    made, on the monotonic clock in nanoseconds: the order of those who wait. ``limits`` are those that its process goes
    by.
    """

    process: Process
    run: str
    since: int
    amount: Amount
    limits: Limits
    scope: Scope
    state: State

    @property
    def name(self) -> str:
        """The entry's name as a file: making and removing one takes no room on the disk, and happens or does not."""
        amount = f"{self.amount.memory}-{self.amount.vcpus}-{self.amount.machines}"
        limits = f"{self.limits.memory}-{self.limits.vcpus}-{self.limits.machines}"
        parts = (self.process.name, self.run, self.since, amount, limits, self.scope.value, self.state.value)
        return ".".join(map(str, parts))

    @classmethod
    def parse(cls, name: str) -> Record | None:
        """Return the entry of this name, None for a file that is not one."""
        parts = name.split(".")
        if len(parts) != _FIELDS:
            return None
        pid, started, run, since, amount, limits, scope, state = parts
        try:
            return cls(
                process=Process(int(pid), int(started)),
                run=run,
                since=int(since),
                amount=Amount(*_numbers(amount)),
                limits=Limits(*_numbers(limits)),
                scope=Scope(scope),
                state=State(state),
            )
        except ValueError:
            return None


def _numbers(text: str) -> tuple[int, int, int]:
    memory, vcpus, machines = map(int, text.split("-"))
    return memory, vcpus, machines
