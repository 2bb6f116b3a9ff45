"""Errors that a drive answers requests with, because a test wants it: QEMU's blkdebug, put in at run time."""

from __future__ import annotations

import errno as numbers
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_kvm.errors import SpecError
from pytest_kvm.machine.devices.layers import Filter, add_filter, remove_filter
from pytest_kvm.spec.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from pytest_kvm.machine.run import Run
    from pytest_kvm.machine.vm import VM

# QEMU's qapi/block-core.json, BlkdebugIOType, without block-status, which no guest asks for.
OPERATIONS = ("read", "write", "write-zeroes", "discard", "flush")
# Each is a rule of blkdebug's, and QEMU takes time that grows with the square of their number.
MOST_SECTORS = 2048


class Fault(AbstractContextManager["Fault"]):
    """What a drive fails with, until ``remove()``, the end of a ``with`` block, or that of QEMU."""

    def __init__(self, vm: VM, id: str, added: Filter) -> None:
        self._vm = vm
        self._id = id
        self._filter = added
        self._run: Run | None = vm._run

    def remove(self) -> None:
        """Let the drive work again; does nothing when it does."""
        run, self._run = self._run, None
        if run is not None and run is self._vm._run and run.process.running:
            layers = run.layers.get(self._id)
            if layers is not None and self._filter in layers.filters:
                remove_filter(self._vm, self._id, self._filter)

    def __exit__(self, *_: object) -> None:
        """Let the drive work again."""
        self.remove()


def fail(
    vm: VM, id: str, operations: tuple[str, ...], errno: int | str, sectors: int | range | None, *, once: bool
) -> Fault:
    """Let a drive fail from now on; raises SpecError for what cannot be."""
    vm._check_on()
    number = _errno(errno)
    places = _sectors(sectors, once=once)
    for each in operations:
        if each not in OPERATIONS:
            hint = did_you_mean(each, OPERATIONS) if isinstance(each, str) else f"it is {listed(OPERATIONS)}"
            raise SpecError(f"disk.fail({shown(each)}): no such operation; {hint}", keyword="operations", value=each)
        if each == "flush" and sectors is not None:
            raise SpecError(
                "disk.fail('flush', sectors=…): a flush is of the whole disk; leave out sectors", keyword="sectors"
            )
    rules = [
        # 'none' is an event that has always come already.
        {"event": "none", "errno": number, "once": once, **iotype, **place}
        for iotype in ([{"iotype": each} for each in dict.fromkeys(operations)] or [{}])
        for place in ([{"sector": each} for each in places] or [{}])
    ]
    return Fault(vm, id, add_filter(vm, id, {"driver": "blkdebug", "inject-error": rules}, "image"))


def _errno(given: int | str) -> int:
    if isinstance(given, str) and isinstance(getattr(numbers, given, None), int):
        return int(getattr(numbers, given))
    if isinstance(given, int) and not isinstance(given, bool) and given in numbers.errorcode:
        return given
    raise SpecError(
        f"disk.fail(errno={shown(given)}): expected the name of an error, such as 'EIO' or 'ENOSPC', or its number",
        keyword="errno",
        value=given,
    )


def _sectors(given: int | range | None, *, once: bool) -> range | list[int]:
    if given is None:
        return []
    subject = f"disk.fail(sectors={shown(given)})"
    if isinstance(given, int) and not isinstance(given, bool):
        given = range(given, given + 1)
    if not isinstance(given, range):
        raise SpecError(
            f"{subject}: expected the number of a sector of 512 bytes, or a range of them", keyword="sectors"
        )
    if not given or min(given) < 0:
        raise SpecError(f"{subject}: that is no sector of a disk", keyword="sectors", value=given)
    if len(given) > MOST_SECTORS:
        raise SpecError(
            f"{subject}: {len(given)} sectors, the most is {MOST_SECTORS}; leave it out for the whole disk",
            keyword="sectors",
            value=given,
        )
    if once and len(given) > 1:
        raise SpecError(
            f"{subject}: with once=True it is one sector, since QEMU counts for each of them", keyword="sectors"
        )
    return given
