"""Where a device is: in QEMU's tree, and in the guest's /sys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import CommandTimeout, MachineError
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

PERIPHERAL = "/machine/peripheral"
# hw/i386/microvm.c: each transport has 512 bytes from here on.
MMIO_BASE, MMIO_SIZE = 0xFEB00000, 512
# A moment, for whatever shell there is.
PAUSE = "usleep 2000 2>/dev/null || sleep 0.02 2>/dev/null || sleep 1"


@dataclass(frozen=True)
class Place:
    """Where the guest finds a device: its ``address`` on PCI (``0000:00:03.0``), or of its registers (``0xfeb02e00``).

    ``regions`` are those of PCI, as QMP's query-pci has them.
    """

    bus: str
    address: str
    regions: tuple[Mapping[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """A shell word that is the directory of the device in the guest."""
        if self.bus == "pci":
            return f"/sys/bus/pci/devices/{self.address}"
        start = f"{int(self.address, 16):08x}-"
        return f'/sys/bus/platform/devices/"$(sed -n "s/^ *{start}[0-9a-f]* : //p" /proc/iomem | head -n 1)"'


def identifiers(vm: VM) -> dict[str, str]:
    """Return the ids of the devices that a running machine has, each with QEMU's name of the device."""
    children = vm.qmp.execute("qom-list", {"path": PERIPHERAL})
    found = {str(child["name"]): re.fullmatch(r"child<(.*)>", child["type"]) for child in children}
    return {name: match[1] for name, match in found.items() if match is not None}


def get(vm: VM, path: str, name: str) -> Any:
    """Return a property of an object of QEMU's; raises QMPError."""
    return vm.qmp.execute("qom-get", {"path": path, "property": name})


def place_of(vm: VM, name: str) -> Place:
    """Return where the guest finds a device on PCI, or of virtio-mmio; raises MachineError for one on other buses."""
    for each in flat(vm.qmp.execute("query-pci")):
        if each["qdev_id"] == name:
            return Place("pci", address_of(each), tuple(each["regions"]))
    bus = str(get(vm, f"{PERIPHERAL}/{name}", "parent_bus"))
    number = re.search(r"/virtio-mmio-bus\.(\d+)$", bus)
    if number is None:
        raise MachineError(f"VM {vm.name!r}: device {name!r} is neither on PCI nor virtio-mmio, but on {bus}")
    return Place("mmio", f"{MMIO_BASE + int(number[1]) * MMIO_SIZE:#x}")


def flat(buses: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the devices of query-pci, those behind bridges, too."""
    for bus in buses:
        for device in bus["devices"]:
            yield device
            bridge = device.get("pci_bridge")
            if bridge is not None:
                yield from flat([bridge])


def address_of(device: Mapping[str, Any]) -> str:
    """Return a device's address as Linux writes it."""
    return f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']}"


def host_of(vm: VM, name: str) -> str:
    """Return the id of the device that the bus is of which a device is on; "" for one of the board's own."""
    bus = str(get(vm, f"{PERIPHERAL}/{name}", "parent_bus"))
    match = re.match(rf"{PERIPHERAL}/([^/]+)/", bus)
    return match[1] if match is not None else ""


def find_in_guest(vm: VM, script: str, what: str, deadline: Deadline) -> str:
    """Return what a shell script prints in the guest, as soon as it succeeds; raises MachineError when it does not."""
    try:
        done = vm.run(f'until found=$({script}); do {PAUSE}; done; echo "$found"', timeout=deadline.remaining())
    except CommandTimeout as error:
        raise MachineError(
            f"VM {vm.name!r}: the guest does not have {what} after {deadline.seconds or 0.0:g} s; does its kernel "
            f"({_release(vm)}) have the driver?"
        ) from error
    return done.stdout.strip()


def _release(vm: VM) -> str:
    return vm.run("uname -r", check=False).stdout.strip()
