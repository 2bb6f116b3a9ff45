"""Reading a virtio device's configuration space as the guest would, through QEMU's monitor.

No file of the guest shows it, and its kernel keeps everybody else away from a device that has a driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.devices.places import Place
from pytest_kvm.machine.devices.sysfs import GuestView

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# PCI's capabilities, and where their list begins.
_LIST, _VENDOR, _MSIX = 0x34, 0x09, 0x11
_MSIX_ENABLED = 0x80
# Virtio 1.3, 4.1.4: the structure of a capability, cfg_type of the device's own configuration.
_DEVICE_CFG = 4
# 4.1.4.10: behind the legacy header, which has two fields more with MSI-X. 4.2.2: of virtio-mmio.
_LEGACY, _LEGACY_MSIX, _MMIO = 20, 24, 0x100


def read_config(vm: VM, place: Place, guest: GuestView, size: int, *, legacy: bool) -> bytes:
    """Return so many bytes of a device's configuration space; raises MachineError where it cannot be found."""
    if size == 0:
        return b""
    if place.bus == "mmio":
        return _memory(vm, int(place.address, 16) + _MMIO, size)
    capabilities = list(_capabilities(guest.pci))
    if legacy:
        enabled = any(kind == _MSIX and guest.pci[at + 3] & _MSIX_ENABLED for kind, at in capabilities)
        start = _bar(vm, place, 0) + (_LEGACY_MSIX if enabled else _LEGACY)
        return b"".join(_port(vm, start + number) for number in range(size))
    for kind, at in capabilities:
        if kind == _VENDOR and guest.pci[at + 3] == _DEVICE_CFG:
            offset = int.from_bytes(guest.pci[at + 8 : at + 12], "little")
            return _memory(vm, _bar(vm, place, guest.pci[at + 4]) + offset, size)
    raise MachineError(
        f"VM {vm.name!r}: where the configuration space of the device at {place.address} is cannot be read; "
        f"that takes root in the guest, not {vm.user or 'somebody else'}"
    )


def _capabilities(pci: bytes) -> Iterator[tuple[int, int]]:
    """Yield the capabilities of PCI's configuration space, each with where it is."""
    at = pci[_LIST] if len(pci) > _LIST else 0
    seen = set()
    while 0 < at < len(pci) - 12 and at not in seen:
        seen.add(at)
        yield pci[at], at
        at = pci[at + 1]


def _bar(vm: VM, place: Place, number: int) -> int:
    for region in place.regions:
        if region["bar"] == number:
            return int(region["address"])
    raise MachineError(f"VM {vm.name!r}: the device at {place.address} has no region {number}")


def _memory(vm: VM, address: int, size: int) -> bytes:
    said = vm.qmp.hmp(f"xp /{size}xb {address:#x}")
    data = bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", said))
    if len(data) != size:
        raise MachineError(f"VM {vm.name!r}: QEMU does not read {size} bytes at {address:#x}: {said.strip()}")
    return data


def _port(vm: VM, address: int) -> bytes:
    said = vm.qmp.hmp(f"i /bx {address:#x}")
    value = re.search(r"= (?:0x)?([0-9a-f]+)\s*$", said)
    if value is None:
        raise MachineError(f"VM {vm.name!r}: QEMU does not read port {address:#x}: {said.strip()}")
    return bytes([int(value[1], 16)])
