"""How fast a drive is, because a test wants it: QEMU's own throttling of a device's block backend."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_kvm.errors import SpecError
from pytest_kvm.machine.devices.layers import backend_id
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.wording import Rejected, shown

if TYPE_CHECKING:
    from pytest_kvm.machine.run import Run
    from pytest_kvm.machine.vm import VM

# include/qemu/throttle.h, THROTTLE_VALUE_MAX.
LARGEST = 10**15


class Throttle(AbstractContextManager["Throttle"]):
    """The limits of a drive, until ``remove()``, the end of a ``with`` block, other limits, or QEMU's end."""

    def __init__(self, vm: VM, id: str) -> None:
        self._vm = vm
        self._id = id
        self._run: Run | None = vm._run

    def remove(self) -> None:
        """Let the drive be as fast as it can."""
        run, self._run = self._run, None
        if run is not None and run is self._vm._run and run.process.running:
            _set(self._vm, self._id, {})

    def __exit__(self, *_: object) -> None:
        """Let the drive be as fast as it can."""
        self.remove()


def throttle(vm: VM, id: str, given: Mapping[str, int | str | None]) -> Throttle:
    """Limit a drive, in place of earlier limits; raises SpecError, QMPError."""
    limits = {name: _limit(name, value) for name, value in given.items() if value is not None}
    for total in ("iops", "bps"):
        both = [name for name in limits if name.startswith(f"{total}_")]
        if total in limits and both:
            raise SpecError(
                f"disk.throttle({total}=…, {both[0]}=…): it is limited in all, or each way for itself", keyword=total
            )
    vm._check_on()
    _set(vm, id, limits)
    return Throttle(vm, id)


def _set(vm: VM, id: str, limits: Mapping[str, int]) -> None:
    none = dict.fromkeys(("iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"), 0)
    vm.qmp.execute("block_set_io_throttle", {"id": backend_id(vm, id), **none, **limits})


def _limit(name: str, value: int | str) -> int:
    try:
        return _read(name, value)
    except Rejected as reason:
        raise SpecError(f"disk.throttle({name}={shown(value)}): {reason}", keyword=name, value=value) from None


def _read(name: str, value: int | str) -> int:
    limit = read_size(value, "B") if name.startswith("bps") else value
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise Rejected(f"expected a number of requests in a second, 1 at least, got {shown(value)}")
    if limit > LARGEST:
        raise Rejected(f"the most is {LARGEST}, got {shown(value)}")
    return limit
