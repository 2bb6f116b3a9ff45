"""Taking a device out of a running machine: with the guest's consent, or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import HostError, HotplugError, QMPError, SpecError
from pytest_kvm.machine.devices.layers import layers_of, remove_filters
from pytest_kvm.machine.devices.places import PERIPHERAL, get, host_of
from pytest_kvm.machine.devices.plugging import remove
from pytest_kvm.machine.devices.slots import pin
from pytest_kvm.qemu.cmdline import SHELL_BUS
from pytest_kvm.qemu.devices import Part, parts
from pytest_kvm.qemu.plan import IMAGE_DISK, PlannedDevice, machine_kind
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# What the guest's kernel or QEMU say when the guest refuses; the second is what QEMU before 6.2 has for memory.
_REFUSED = ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")
# With 7.2.22 the C library's "corrupted double-linked list", or a guest that hangs, follows in a second or two.
_SOUND = (8, 0)
# ACPI's PCI hot-plug (QEMU's docs/specs/acpi_pci_hotplug.rst): its ports, and which of them eject and select a bus.
_ACPI = {"q35": 0x0CC0, "pc": 0xAE00}
_EJECT, _SELECT = 0x8, 0x10


def unplug(vm: VM, name: str, deadline: Deadline, *, surprise: bool) -> None:
    """Unplug a device and remove what is behind it; raises SpecError, HostError, QMPError, HotplugError."""
    if name in (SHELL_BUS, IMAGE_DISK) or host_of(vm, name) == SHELL_BUS:
        raise SpecError(f"VM {vm.name!r}: {name!r} is what the machine lives on", keyword="id", value=name)
    plugged = next((each for each in vm._plan.plugged if each.id == name), None)
    processor = vm.device(name).driver.endswith("-cpu")
    if processor and vm.accel.startswith("tcg") and vm._binary.version < _SOUND:
        raise HostError(
            f"VM {vm.name!r}: QEMU {vm._binary.version_text} corrupts its memory when an emulated CPU is unplugged",
            hint="use KVM, or QEMU 8.0 or newer: --kvm-qemu=PATH",
        )
    if any(drive.id == name for drive, _ in vm._plan.drives):
        _bare(vm, name)
    pin(vm)
    made = parts(plugged, machine_kind(vm.spec.machine)) if plugged is not None else ()
    if surprise:
        _out(vm, name, lambda: _eject(vm, name), deadline)
    else:
        _out(vm, name, lambda: vm.qmp.execute("device_del", {"id": name}), deadline)
    _tidy(vm, name, made, deadline)
    _forget(vm, name, plugged)


def _bare(vm: VM, name: str) -> None:
    """Take away what was put between a drive and its file; raises SpecError for what stays as long as QEMU."""
    if layers_of(vm, name).unflushed is not None:
        raise SpecError(
            f"VM {vm.name!r}: drive {name!r} keeps apart what is not flushed (lose_unflushed) until it goes off",
            keyword="id",
            value=name,
        )
    remove_filters(vm, name)


def _out(vm: VM, name: str, ask: Callable[[], object], deadline: Deadline) -> None:
    """Wait for DEVICE_DELETED after ``ask``; raises HotplugError when the guest refuses, or does nothing."""
    ended: list[Mapping[str, Any]] = []

    def look() -> bool:
        ended.extend(
            event
            for event in vm.qmp.events[before:]
            if event["event"] in ("DEVICE_DELETED", *_REFUSED) and _is_about(event["data"], name)
        )
        return bool(ended)

    before = len(vm.qmp.events)
    ask()
    if not vm.watch.wait_for(look, deadline):
        raise HotplugError(
            f"VM {vm.name!r}: the guest does not give {name!r} back, after {deadline.seconds or 0.0:g} s; is it in use "
            "there, or has the guest not come to it? It stays plugged in, and goes when the guest lets it",
            device=name,
        )
    if ended[0]["event"] != "DEVICE_DELETED":
        reason = ended[0]["data"].get("msg", "")
        raise HotplugError(
            f"VM {vm.name!r}: the guest refuses to give {name!r} back{f': {reason}' if reason else ''}", device=name
        )


def _is_about(data: Mapping[str, Any], name: str) -> bool:
    # Of a processor QEMU tells only that its local APIC has gone.
    return name == data.get("device") or data.get("path") == f"{PERIPHERAL}/{name}/lapic"


def _eject(vm: VM, name: str) -> None:
    """Let a device of PCI vanish: what the guest writes last when it gives one back, written by us without it."""
    ports = _ACPI.get(machine_kind(vm.spec.machine))
    bus = str(get(vm, f"{PERIPHERAL}/{name}", "parent_bus"))
    try:
        number = get(vm, bus, "acpi-pcihp-bsel") if ports is not None else None
    except QMPError:
        number = None
    if ports is None or number is None:
        vm.qmp.execute("device_del", {"id": name})  # SCSI, USB and ports ask nobody
        return
    slot = int(get(vm, f"{PERIPHERAL}/{name}", "addr")) >> 3
    for port, value in ((_SELECT, number), (_EJECT, 1 << slot)):
        vm.qmp.hmp(f"o /w {ports + port:#x} {value:#x}")


def _tidy(vm: VM, name: str, made: Sequence[Part], deadline: Deadline) -> None:
    """Remove what was behind a device that has gone."""
    if any(drive.id == name for drive, _ in vm._plan.drives):
        _removed(vm, "blockdev-del", {"node-name": name})
        if vm._run is not None:
            vm._run.layers.pop(name, None)
        for drive, file in vm._plan.drives:
            if drive.id == name and file.path.parent == vm._folder:
                file.path.unlink(missing_ok=True)
    if any(nic.id == name for nic in vm._plan.nics):
        _removed(vm, "netdev_del", {"id": name})
    for part in reversed(made[:-1]):
        if part.option == "device":
            bus = str(part.settings["id"])
            _out(vm, bus, partial(vm.qmp.execute, "device_del", {"id": bus}), deadline)
        else:
            remove(vm, part)


def _removed(vm: VM, command: str, arguments: Mapping[str, object]) -> None:
    try:
        vm.qmp.execute(command, arguments)
    except QMPError as error:
        if error.error_class != "GenericError" or "not find" not in str(error).lower():
            raise


def _forget(vm: VM, name: str, plugged: PlannedDevice | None) -> None:
    """Let the machine be without it from now on, also when it is started again."""
    plan = vm._plan
    declared = plugged is None and not any(each.id == name and each.port for each, _ in plan.drives)
    declared = declared and not any(nic.id == name and nic.port for nic in plan.nics)
    vm._plan = replace(
        plan,
        drives=[(drive, file) for drive, file in plan.drives if drive.id != name],
        nics=[nic for nic in plan.nics if nic.id != name],
        plugged=[each for each in plan.plugged if each.id != name],
        unplugged=[*plan.unplugged, name] if declared else plan.unplugged,
        addresses={each: address for each, address in plan.addresses.items() if each != name},
    )
