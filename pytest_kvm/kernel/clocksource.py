"""The clock that a guest's kernel counts time by."""

from __future__ import annotations

from pytest_kvm.errors import MachineError
from pytest_kvm.kernel.guest import Guest

_FOLDER = "/sys/devices/system/clocksource/clocksource0"


class ClockSource:
    """The clock sources of a guest, as the kernel names them: ``kvm-clock``, ``tsc``, ``hpet``, ``acpi_pm`` …"""

    def __init__(self, vm: Guest) -> None:
        self._vm = vm

    def __repr__(self) -> str:
        return f"<ClockSource of VM {self._vm.name!r}>"

    @property
    def current(self) -> str:
        """The one that the kernel counts by now."""
        return self._vm.run(f"cat {_FOLDER}/current_clocksource").stdout.strip()

    @property
    def available(self) -> list[str]:
        """Those that it has, the one that it likes best first."""
        return self._vm.run(f"cat {_FOLDER}/available_clocksource").stdout.split()

    def set(self, name: str) -> None:
        """Let the kernel count by another one; raises MachineError, with those that it has, when it does not.

        The kernel itself ignores a name that it does not know (kernel/time/clocksource.c, clocksource_select).
        """
        available = self.available
        if name not in available:
            raise MachineError(
                f"VM {self._vm.name!r}: its kernel has no clock source {name!r}; it has {', '.join(available)}"
            )
        self._vm.run(f"echo {name} >{_FOLDER}/current_clocksource")
        current = self.current
        if current != name:
            raise MachineError(f"VM {self._vm.name!r}: its kernel counts by {current!r}, and will not by {name!r}")
