"""The verbs of a machine that are about its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast, overload

from pytest_kvm.errors import SpecError
from pytest_kvm.machine.devices.attached import AttachedDevice, AttachedDisk, AttachedNic, AttachedPort
from pytest_kvm.machine.devices.balloon import Balloon, find_balloon
from pytest_kvm.machine.devices.places import identifiers
from pytest_kvm.machine.devices.plugging import Pluggable, as_declared, plug
from pytest_kvm.machine.devices.unplugging import unplug
from pytest_kvm.machine.devices.virtio import VirtioState, look
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.wording import did_you_mean
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

Kind = TypeVar("Kind", bound=AttachedDevice)
_HOTPLUG = Usual(30)
_VIRTIO = ("virtio-", "vhost-")
_PORTS = ("virtserialport", "virtconsole")


class WithDevices:
    """The part of a machine that has devices.

    Their ids are QEMU's: what ``id=`` said, else ``net0``, ``disk0``, ``cdrom0``, ``balloon0``, ``rng0`` … in order of
    declaration.
    """

    def device(self, id: str) -> AttachedDevice:
        """Return a device of the running machine by its id; raises SpecError, with the ids that there are."""
        vm = cast("VM", self)
        there = identifiers(vm)
        if id not in there:
            raise SpecError(
                f"VM {vm.name!r}: no device has id {id!r}; {did_you_mean(id, sorted(there))}", keyword="devices"
            )
        for drive, _ in vm._plan.drives:
            if drive.id == id:
                return AttachedDisk(vm, drive, there[id])
        for nic in vm._plan.nics:
            if nic.id == id:
                return AttachedNic(vm, nic, there[id])
        return (AttachedPort if there[id] in _PORTS else AttachedDevice)(vm, id, there[id])

    def disk(self, id: str) -> AttachedDisk:
        """Return a drive of the running machine by its id; raises SpecError, with the ids of its drives."""
        vm = cast("VM", self)
        return self._one(id, AttachedDisk, "drive", [drive.id for drive, _ in vm._plan.drives])

    def nic(self, id: str) -> AttachedNic:
        """Return a network card of the running machine by its id; raises SpecError, with the ids of its cards."""
        vm = cast("VM", self)
        return self._one(id, AttachedNic, "NIC", [nic.id for nic in vm._plan.nics])

    def virtio(self, id: str) -> VirtioState:
        """Return what a virtio device of the running machine and its driver have agreed on, as it is now.

        Raises SpecError for a device that is not virtio's, MachineError when the guest does not have it, and
        NegotiationError when guest and QEMU do not tell the same.
        """
        device = self.device(id)
        if not device.driver.startswith(_VIRTIO):
            raise SpecError(f"{device!r} is none of virtio, or on another one's bus", keyword="devices")
        return look(cast("VM", self), id)

    @overload
    def plug(self, device: Drive, *, timeout: float = _HOTPLUG) -> AttachedDisk: ...

    @overload
    def plug(self, device: Nic, *, timeout: float = _HOTPLUG) -> AttachedNic: ...

    @overload
    def plug(self, device: BaseDevice | str, *, timeout: float = _HOTPLUG) -> AttachedDevice: ...

    def plug(self, device: Pluggable | str, *, timeout: float = _HOTPLUG) -> AttachedDevice:
        """Plug a device into the running machine, wait until the guest has it, and return it as ``device(id)`` does.

        A Drive (``.node`` is the guest's ``/dev/vdb``), a Nic (``.ifname``), a typed device or text as for ``-device``;
        of PCI, each takes a free root port of a q35 (there are four spare ones), on a pc any slot. ``timeout`` is in
        seconds. Memory goes into use as movable. The machine can be saved, cloned and started again with it.

        Raises SpecError for what cannot be plugged in, HostError for what this QEMU does not have, QMPError when QEMU
        refuses it, HotplugError when the guest does not take it in time.
        """
        vm = cast("VM", self)
        with vm._verbs:
            vm._check_on()
            wanted = as_declared(device) if isinstance(device, str) else device
            return self.device(plug(vm, wanted, Deadline(vm.watch.limit(timeout))))

    def unplug(self, id: str, *, surprise: bool = False, timeout: float = _HOTPLUG) -> None:
        """Take a device out of the running machine; returns when it and what was behind it are gone.

        The guest is asked to give it back. ``surprise`` does not ask: the device vanishes under its driver, as one that
        is pulled out; the guest still shows one of PCI until it looks. ``timeout`` is in seconds.

        Raises SpecError for a device that there is not, QMPError for one that QEMU cannot take out (of those that were
        not plugged in, q35 has hot-plug only on root ports: ``properties={"bus": "rootport0"}``), HotplugError when the
        guest refuses, or does not let it go in time; then it is still there.
        """
        vm = cast("VM", self)
        with vm._verbs:
            vm._check_on()
            self.device(id)  # there is one
            unplug(vm, id, Deadline(vm.watch.limit(timeout)), surprise=surprise)

    @property
    def balloon(self) -> Balloon:
        """The balloon of the running machine; raises SpecError when it has none."""
        return find_balloon(cast("VM", self))

    def _one(self, name: str, kind: type[Kind], what: str, names: list[str]) -> Kind:
        if name not in names:
            there = did_you_mean(name, names) if names else "it has none"
            raise SpecError(f"VM {cast('VM', self).name!r}: no {what} has id {name!r}; {there}", keyword="devices")
        found = self.device(name)
        if not isinstance(found, kind):
            raise TypeError(f"{found!r} is no {what}")
        return found
