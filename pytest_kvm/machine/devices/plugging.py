"""Plugging a device into a running machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import QMPError, SpecError
from pytest_kvm.machine.devices.arrival import (
    await_cpu,
    await_memory,
    await_on_pci,
    cpus,
    load,
    memory_blocks,
)
from pytest_kvm.machine.devices.checking import check_properties
from pytest_kvm.machine.devices.places import identifiers
from pytest_kvm.machine.devices.slots import free_bus, pin
from pytest_kvm.machine.disks import check_files, prepare
from pytest_kvm.machine.planning import new_mac, sized
from pytest_kvm.qemu.blocks import SCSI, USB, node
from pytest_kvm.qemu.blocks import device as drive_device
from pytest_kvm.qemu.built import Built, read_device
from pytest_kvm.qemu.devices import Part, check_known, parts
from pytest_kvm.qemu.nics import backend
from pytest_kvm.qemu.nics import device as nic_device
from pytest_kvm.qemu.plan import PlannedDevice, PlannedDrive, PlannedNic, free_id, machine_kind
from pytest_kvm.qemu.text import OFF, ON
from pytest_kvm.spec.devices import CPU, BaseDevice, Device, Dimm, VirtioMem, VirtioSCSI
from pytest_kvm.spec.devices.base import VirtioDevice
from pytest_kvm.spec.devices.board import BLOCK
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.size import parse_size
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

Pluggable = Drive | Nic | BaseDevice
# What is on PCI itself, among drives.
_ON_PCI = ("virtio", "nvme")
_FIXED = ("ide", "floppy")


def plug(vm: VM, device: Pluggable, deadline: Deadline) -> str:
    """Plug a device in, wait until the guest has it, and return its id.

    Raises SpecError for what cannot be plugged in, HostError for what this QEMU does not have, QMPError when QEMU
    refuses, HotplugError when the guest does not take it.
    """
    taken = {*identifiers(vm), *(each.id for each, _ in vm._plan.drives), *(nic.id for nic in vm._plan.nics)}
    if device.id in taken:
        raise SpecError(f"VM {vm.name!r}: the id {device.id!r} is taken", keyword="id", value=device)
    match device:
        case Drive():
            name = _drive(vm, device, device.id or free_id(device.media, taken), deadline)
        case Nic():
            name = _nic(vm, device, device.id or free_id("net", taken), deadline)
        case CPU():
            name = _cpu(vm, device, device.id or free_id(device.KIND, taken), deadline)
        case _:
            name = _device(vm, device, device.id or free_id(device.KIND, taken), deadline)
    pin(vm)
    return name


def as_declared(text: str) -> Device:
    """Return the device that a text as for ``-device`` is about, with properties as QMP has them; raises SpecError."""
    built = read_device(text)
    settings = dict(built.settings)
    name = settings.pop("id", None)
    values = {key: _typed(value) for key, value in settings.items()}
    return Device(built.driver, id=None if name is None else str(name), properties=values)


def _typed(value: object) -> object:
    """Return a value of an option text as JSON has it: QMP does not take texts for numbers or switches."""
    if value in (*ON, *OFF):
        return value in ON
    if isinstance(value, str) and (value.isdecimal() or value.startswith("0x")):
        with contextlib.suppress(ValueError):
            return int(value, 0)
    return value


def _drive(vm: VM, drive: Drive, name: str, deadline: Deadline) -> str:
    if drive.interface in _FIXED:
        raise SpecError(f"VM {vm.name!r}: {drive!r} cannot be plugged in: {drive.interface} is no bus for that")
    check_files(vm.spec.replace(drives=[drive], shares=[], user_data=None))
    planned = PlannedDrive(name, drive, _unit(vm, drive))
    bus: dict[str, object] = {}
    if drive.interface in _ON_PCI:
        planned = replace(planned, port=free_bus(vm, f"drive {name!r}"))
        bus = {"bus": planned.port} if planned.port else {}
    driver, settings = drive_device(planned, machine_kind(vm.spec.machine), scsi=_adapter(vm, drive))
    check_properties(name, drive.properties, Built(driver, settings), vm._binary)
    ((_, file),) = prepare([planned], vm._folder, vm._binary)
    made: dict[str, object] = {"driver": driver, **settings, **bus}
    _made(vm, ("blockdev-add", node(planned, file)), ("device_add", made), undo=("blockdev-del", {"node-name": name}))
    vm._plan = replace(vm._plan, drives=[*vm._plan.drives, (planned, file)])
    if drive.interface in _ON_PCI:
        await_on_pci(vm, name, deadline)
    else:
        load(vm, "sd_mod sr_mod usb_storage" if drive.interface == "usb" else "sd_mod sr_mod", deadline)
    vm.disk(name).wait(deadline)
    return name


def _unit(vm: VM, drive: Drive) -> int:
    there = {each.unit for each, _ in vm._plan.drives if each.drive.interface == drive.interface}
    if drive.index is None:
        return next(number for number in range(len(there) + 1) if number not in there)
    if drive.index in there and drive.interface not in _ON_PCI:
        raise SpecError(f"VM {vm.name!r}: index {drive.index} of interface {drive.interface!r} is taken", value=drive)
    return drive.index


def _adapter(vm: VM, drive: Drive) -> str:
    """Return the id of the SCSI adapter; raises SpecError when the bus of a drive is not there."""
    there = identifiers(vm)
    adapters = [name for name, driver in there.items() if driver.startswith("virtio-scsi")]
    if drive.interface == "scsi" and not adapters:
        raise SpecError(
            f"VM {vm.name!r}: {drive!r} cannot be plugged in: there is no SCSI adapter; declare one, or plug one in "
            "before: VirtioSCSI()"
        )
    if drive.interface == "usb" and USB not in there:
        raise SpecError(
            f"VM {vm.name!r}: {drive!r} cannot be plugged in: there is no USB; declare "
            "Device('qemu-xhci', id='usb0'), or plug it in before"
        )
    return SCSI if SCSI in adapters or not adapters else adapters[0]


def _nic(vm: VM, nic: Nic, name: str, deadline: Deadline) -> str:
    there = {each.number for each in vm._plan.nics}
    number = next(number for number in range(len(there) + 1) if number not in there)
    mac = (nic.mac or new_mac()).replace("-", ":")
    planned = PlannedNic(name, nic, mac, port=free_bus(vm, f"NIC {name!r}"), number=number)
    driver, settings = nic_device(planned, machine_kind(vm.spec.machine), rom=False)
    check_known(driver, vm._binary, repr(nic))
    check_properties(name, nic.properties, Built(driver, settings), vm._binary)
    wire = {"type": "user", **backend(planned, internet=vm.spec.internet)}
    _made(vm, ("netdev_add", wire), ("device_add", {"driver": driver, **settings}), undo=("netdev_del", {"id": name}))
    vm._plan = replace(vm._plan, nics=[*vm._plan.nics, planned])
    await_on_pci(vm, name, deadline)
    vm.nic(name).wait(deadline)
    return name


def _device(vm: VM, device: BaseDevice, name: str, deadline: Deadline) -> str:
    planned = PlannedDevice(name, sized(device))
    kind = machine_kind(vm.spec.machine)
    driver = parts(planned, kind)[-1].first
    check_known(driver, vm._binary, repr(device))
    check_properties(name, device.properties, Built(driver, {}), vm._binary)
    on_pci = _is_on_pci(vm, device, parts(planned, kind))
    if on_pci:
        planned = replace(planned, port=free_bus(vm, f"device {name!r}"))
    blocks = memory_blocks(vm, deadline) if isinstance(device, (Dimm, VirtioMem)) else 0
    with _undoing(vm) as done:
        for part in parts(planned, kind):
            vm.qmp.execute(*_told(part))
            done.append(part)
    vm._plan = replace(vm._plan, plugged=[*vm._plan.plugged, planned])
    if on_pci:
        await_on_pci(vm, name if _has_own_slot(device) else f"{name}-bus", deadline)
    if isinstance(device, Dimm):
        await_memory(vm, name, blocks + parse_size(device.size, "B") // BLOCK, deadline)
    if isinstance(device, VirtioSCSI):
        load(vm, "sd_mod sr_mod", deadline)
    return name


def _has_own_slot(device: BaseDevice) -> bool:
    return isinstance(device, (VirtioDevice, Device))


def _is_on_pci(vm: VM, device: BaseDevice, made: Sequence[Part]) -> bool:
    """Return whether a device, or the bus that comes with it, takes a slot of PCI."""
    if "bus" in device.properties:
        return False
    if isinstance(device, Device):
        known = vm.qmp.execute("device-list-properties", {"typename": device.driver})
        return any(each["name"] == "romfile" for each in known)
    return isinstance(device, VirtioDevice) or sum(part.option == "device" for part in made) == 2


def _cpu(vm: VM, cpu: CPU, name: str, deadline: Deadline) -> str:
    wanted = {"socket-id": cpu.socket, "core-id": cpu.core, "thread-id": cpu.thread}
    there = vm.qmp.execute("query-hotpluggable-cpus")
    free = [each for each in there if "qom-path" not in each]
    fitting = [each for each in free if all(value in (None, each["props"].get(key)) for key, value in wanted.items())]
    if not fitting:
        places = ", ".join(str(each["props"]) for each in free) or "none; give it more, as in smp='1,maxcpus=4'"
        raise SpecError(f"VM {vm.name!r}: no place is free for {cpu!r}; there are {places}", keyword="smp")
    place = fitting[-1]  # QEMU lists the highest first
    device = Device(place["type"], id=name, properties={**place["props"], **cpu.properties})
    before = cpus(vm, name, deadline)
    vm.qmp.execute("device_add", {"driver": place["type"], "id": name, **device.properties})
    vm._plan = replace(vm._plan, plugged=[*vm._plan.plugged, PlannedDevice(name, device)])
    await_cpu(vm, name, before, deadline)
    return name


def _told(part: Part) -> tuple[str, Mapping[str, Any]]:
    """Return a part as a command of QMP."""
    settings = {key: value for key, value in part.settings.items() if value is not None}
    match part.option:
        case "object":
            return "object-add", {"qom-type": part.first, **settings}
        case "chardev":
            address = {"type": "unix", "data": {"path": settings["path"]}}
            data = {"addr": address, "server": True, "wait": False}
            return "chardev-add", {"id": settings["id"], "backend": {"type": part.first, "data": data}}
        case "audiodev":
            return "audiodev-add", {"driver": part.first, **settings}
    return "device_add", {"driver": part.first, **settings}


@contextlib.contextmanager
def _undoing(vm: VM) -> Iterator[list[Part]]:
    """Take back, in the other order, what the block has made when it fails."""
    done: list[Part] = []
    try:
        yield done
    except QMPError:
        for part in reversed(done):
            with contextlib.suppress(QMPError):  # the first error is the one to tell
                remove(vm, part)
        raise


def remove(vm: VM, part: Part) -> None:
    """Remove what is behind a device; raises QMPError."""
    command = {"object": "object-del", "chardev": "chardev-remove", "device": "device_del", "audiodev": "audiodev-del"}
    vm.qmp.execute(command[part.option], {"id": part.settings["id"]})


def _made(
    vm: VM,
    behind: tuple[str, Mapping[str, object]],
    device: tuple[str, Mapping[str, object]],
    *,
    undo: tuple[str, Mapping[str, object]],
) -> None:
    """Make what is behind a device, and the device; nothing is left when QEMU refuses that one."""
    name, settings = device
    vm.qmp.execute(*behind)
    try:
        vm.qmp.execute(name, {key: value for key, value in settings.items() if value is not None})
    except QMPError:
        with contextlib.suppress(QMPError):
            vm.qmp.execute(*undo)
        raise
