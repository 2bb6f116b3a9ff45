"""How much memory machines may have, and who has it now."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.cli.output import mib
from pytest_kvm.host.amounts import added, default_limits
from pytest_kvm.host.ledger import Ledger, ledger_name
from pytest_kvm.host.memory import available, total
from pytest_kvm.host.record import State as Share

_GROUP = "Memory"
# What a machine of the usual size takes, and its QEMU, before anybody is short of it.
_LITTLE = 512 << 20


def check(subject: Subject) -> Iterator[Row]:
    """Look at the memory, and at the budget that all sessions share."""
    free, size = available(), total()
    tight = free < _LITTLE
    yield Row(
        group=_GROUP,
        name="memory",
        state=State.NOTE if tight else State.OK,
        text=f"{mib(free)} free of {mib(size)}",
        purpose="machines live in it",
        fix="a machine takes 300 MiB and more: end what takes the rest, or give the container more" if tight else "",
        data={"free": free, "total": size},
    )
    yield _budget(subject)


def _budget(subject: Subject) -> Row:
    limits = default_limits()
    directory = subject.cache / "budget" / ledger_name()
    records = []
    if directory.exists():  # opened, it would be made
        with Ledger(directory, limits).opened() as page:
            records = [(record, page.about(record)) for record in page.records]
    taken = added(record.amount for record, _ in records if record.state is not Share.WAITING)
    holders = [f"{about} (process {record.process.pid}, {record.state.value})" for record, about in records]
    return Row(
        group=_GROUP,
        name="budget",
        state=State.OK,
        text="; ".join([f"{limits.usage(taken)} taken", *holders]),
        purpose="what the machines of all sessions may take together (--kvm-memory-budget)",
        data={"memory": limits.memory, "vcpus": limits.vcpus, "taken": taken.memory, "holders": holders},
    )
