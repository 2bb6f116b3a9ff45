"""Devices that a running machine has, as a test sees them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import QMPError, SpecError
from pytest_kvm.machine.devices.nodes import disk_script, interface_script, port_script
from pytest_kvm.machine.devices.places import PERIPHERAL, Place, find_in_guest, get, host_of, place_of
from pytest_kvm.qemu.plan import PlannedDrive, PlannedNic
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# Its driver has had the time of the boot; what is plugged in is waited for elsewhere.
_PATIENCE = Usual(10)


class AttachedDevice:
    """A device of a running machine: ``id`` is QEMU's id, ``driver`` QEMU's name of the device."""

    def __init__(self, vm: VM, id: str, driver: str) -> None:
        self._vm = vm
        self.id = id
        self.driver = driver

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} ({self.driver}) of VM {self._vm.name!r}>"

    @property
    def qom_path(self) -> str:
        """Where it is in QEMU's tree of objects."""
        return f"{PERIPHERAL}/{self.id}"

    @property
    def properties(self) -> Mapping[str, Any]:
        """All properties that QEMU can read, as they are now."""
        listed = self._vm.qmp.execute("device-list-properties", {"typename": self.driver})
        found = {}
        for each in listed:
            try:
                found[each["name"]] = self.get(each["name"])
            except SpecError:  # some can only be written
                continue
        return found

    def get(self, name: str) -> Any:
        """Return a property (QMP's qom-get); raises SpecError when it has none of that name that can be read."""
        try:
            return get(self._vm, self.qom_path, name)
        except QMPError as error:
            raise SpecError(f"device {self.id!r} ({self.driver}): {error}", keyword=name) from error

    def set(self, name: str, value: object) -> None:
        """Set a property (QMP's qom-set); most cannot be while the machine runs. Raises QMPError."""
        self._vm.qmp.execute("qom-set", {"path": self.qom_path, "property": name, "value": value})

    @property
    def place(self) -> Place:
        """Where the guest finds it; raises MachineError for one that is neither on PCI nor virtio-mmio."""
        return place_of(self._vm, self.id)

    @property
    def address(self) -> str:
        """Its address: on PCI as ``0000:00:03.0``, on virtio-mmio that of its registers; raises as ``place`` does."""
        return self.place.address

    def _find(self, script: str, what: str, deadline: Deadline | None = None) -> str:
        if deadline is None:
            deadline = Deadline(self._vm.watch.limit(_PATIENCE))
        return find_in_guest(self._vm, script, f"{what} of device {self.id!r} ({self.driver})", deadline)


class AttachedPort(AttachedDevice):
    """A port or console of virtio-serial."""

    @property
    def node(self) -> str:
        """The guest's device file, such as ``/dev/vport2p1`` or ``/dev/hvc0``."""
        return f"/dev/{self._find(port_script(self._vm, self.id, self.driver), 'the port')}"

    def connect(self) -> socket.socket:
        """Return a socket that is the host's end of it, until it is closed; one at a time.

        Raises OSError when another one is connected.
        """
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._vm._folder / self.id))
        except OSError:
            connection.close()
            raise
        return connection


class AttachedNic(AttachedDevice):
    """A network card; ``mac`` is its address."""

    def __init__(self, vm: VM, planned: PlannedNic, driver: str) -> None:
        super().__init__(vm, planned.id, driver)
        self.mac = planned.mac

    @property
    def ifname(self) -> str:
        """The guest's name of it, such as ``eth0``; raises MachineError when the guest has no driver for it."""
        return self.wait()

    def wait(self, deadline: Deadline | None = None) -> str:
        """Return the guest's name of it, as soon as it has one."""
        return self._find(interface_script(self.place), "the interface", deadline)


class AttachedDisk(AttachedDevice):
    """A disk, CD-ROM or floppy."""

    def __init__(self, vm: VM, planned: PlannedDrive, driver: str) -> None:
        super().__init__(vm, planned.id, driver)
        self._planned = planned

    @property
    def node(self) -> str:
        """The guest's device file, such as ``/dev/vda``; raises MachineError when the guest has no driver for it."""
        return self.wait()

    def wait(self, deadline: Deadline | None = None) -> str:
        """Return the guest's device file, as soon as there is one."""
        return f"/dev/{self._find(disk_script(self._vm, self._planned, self._controller()), 'the disk', deadline)}"

    def _controller(self) -> Place | None:
        if self._planned.drive.interface in ("virtio", "nvme"):
            return self.place
        if self._planned.drive.interface not in ("scsi", "usb"):
            return None
        host = host_of(self._vm, self.id)
        return place_of(self._vm, host) if host else None
