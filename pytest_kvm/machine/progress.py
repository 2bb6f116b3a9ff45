"""Is a guest slow, or does it hang? What it has done since it was switched on, and what it does now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.host.process import busy_time

if TYPE_CHECKING:
    from pytest_kvm.machine.readiness import Bootable

# For so long a guest is watched before it is said to hang, or to be slow for as long again (seconds).
_WINDOW = 5.0
# The hard limit, as a multiple of the usual one.
HARD = 4.0
# A guest that waits for something wakes up for its clock all the same.
_IDLE = 0.1


@dataclass(frozen=True)
class Activity:
    """What a machine had done at a moment: ``console`` bytes, accesses to ``disks``, ``cpu`` seconds of its vCPUs."""

    at: float
    console: int
    disks: int
    cpu: float

    @classmethod
    def of(cls, vm: Bootable) -> Activity:
        """Return what the machine has done until now; nothing where nobody can tell."""
        console = vm.serial.received if vm.serial is not None else 0
        try:
            disks, cpu = _disks(vm), _cpu(vm)
        except (MachineError, OSError):  # it is going off, or does not answer
            disks, cpu = 0, 0.0
        return cls(time.monotonic(), console, disks, cpu)

    def since(self, before: Activity) -> Activity:
        """Return what was done since an earlier moment; ``at`` is how many seconds that took."""
        return Activity(
            self.at - before.at, self.console - before.console, self.disks - before.disks, self.cpu - before.cpu
        )

    @property
    def is_progress(self) -> bool:
        """Whether a guest that did this in ``at`` seconds does something."""
        return self.console > 0 or self.disks > 0 or self.cpu > _IDLE * self.at

    def __str__(self) -> str:
        return f"{self.console} bytes on the console, {self.disks} disk accesses, {self.cpu:.1f} s of virtual CPU time"


def _disks(vm: Bootable) -> int:
    """QEMU's count (query-blockstats) of what the guest's disks were asked for."""
    stats = [each["stats"] for each in vm.qmp.execute("query-blockstats")]
    return sum(each["rd_operations"] + each["wr_operations"] for each in stats)


def _cpu(vm: Bootable) -> float:
    """Return for how long the vCPUs had something to do: one that a busy host does not let run does not hang."""
    return sum(busy_time(vm.pid, cpu["thread-id"]) for cpu in vm.qmp.execute("query-cpus-fast"))


class Patience:
    """More time for a machine that did not come up in ``spent`` seconds, where it is the usual time and it gets on."""

    def __init__(self, vm: Bootable, spent: float) -> None:
        self.spent = spent
        self._vm = vm
        self._limit = HARD * spent if vm.elastic else spent
        self._last: Activity | None = None
        # What it did in the last window, once it has been watched for one.
        self._recent: Activity | None = None

    @property
    def left(self) -> float:
        """How many seconds there are until the hard limit."""
        return self._limit - self.spent

    def more(self) -> float:
        """Return for how many seconds to go on waiting, 0 when it is enough."""
        now = Activity.of(self._vm)
        self._recent = now.since(self._last) if self._last is not None else None
        self._last = now
        hangs = self._recent is not None and not self._recent.is_progress
        window = 0.0 if hangs else min(_WINDOW, self.left)
        self.spent += window
        return window

    def verdict(self) -> str:
        """Say what was seen, and whether the machine hangs or is slow if that was looked at."""
        seen = f"Since it was switched on: {self._last}."
        if self._recent is None:
            return seen
        what = "It is slow" if self._recent.is_progress else "It hangs"
        return f"{what}; in the last {self._recent.at:.0f} s: {self._recent}. {seen}"
