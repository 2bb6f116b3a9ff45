"""What does this host have for virtual machines, and what mends what is missing?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pytest_kvm.cli.checks import accelerators, emulator, memory, network, nodes, programs, storage
from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject

Check = Callable[[Subject], Iterable[Row]]
_CHECKS: dict[str, Check] = {
    "QEMU": emulator.check,
    "Accelerators": accelerators.check,
    "Storage": storage.check,
    "Memory": memory.check,
    "Network": network.check,
    "Devices": nodes.check,
    "Programs": programs.check,
}


def examine(subject: Subject) -> Iterator[Row]:
    """Look at everything; a check that fails is a row, too, and does not keep the others from being made."""
    for group, check in _CHECKS.items():
        try:
            yield from check(subject)
        except Exception as error:  # noqa: BLE001 - a doctor reports the unforeseen; where it stops, nobody is helped
            text = f"cannot be looked at: {type(error).__name__}: {error}"
            yield Row(group=group, name="check", state=State.BROKEN, text=text)
