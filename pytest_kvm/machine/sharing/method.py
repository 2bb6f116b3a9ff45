"""What a way for a folder into a guest has to be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.qemu.plan import PlannedShare

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM


class CannotShare(Exception):
    """A folder does not come in by a method; the text says why."""


class GuestCannot(CannotShare):
    """It is the guest's fault."""


@dataclass(frozen=True)
class Mount:
    """What the guest mounts: with ``options``, what the shell command ``source`` prints once the device is there."""

    options: str
    source: str


class Method(Protocol):
    """A way for a folder into a guest."""

    @property
    def name(self) -> str:
        """What ``Share(method=…)`` calls it."""

    @property
    def filesystem(self) -> str:
        """The guest's name of its file system, and of the module that has it where it is not built in."""

    @property
    def driver(self) -> str:
        """The same of the virtio driver."""

    def check(self, vm: VM, planned: PlannedShare) -> None:
        """Raise CannotShare for what stands against it on the host, or in how the machine began."""

    def plug(self, vm: VM, planned: PlannedShare, bus: dict[str, str]) -> Mount:
        """Plug the device into the running machine. Raises CannotShare, QMPError, HostError, MachineError."""
