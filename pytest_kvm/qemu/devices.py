"""What QEMU is told about a declared device: what it needs, and itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.built import read_device
from pytest_kvm.qemu.plan import PlannedDevice
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.devices.base import BaseDevice, Device, VirtioDevice
from pytest_kvm.spec.devices.board import Dimm, VirtioMem, VirtioPmem
from pytest_kvm.spec.devices.virtio import VirtioConsole, VirtioCrypto, VirtioRng, VirtioSerialPort, VirtioSound
from pytest_kvm.spec.size import parse_size

Settings = dict[str, object]
# Those that virtio 0.9 knew; QEMU has no legacy interface for newer ones.
_LEGACY = ("virtio-net", "virtio-blk", "virtio-scsi", "virtio-balloon", "virtio-rng", "virtio-serial", "virtio-9p")
_SUFFIXES = {
    "pci": "-pci",
    "pci-legacy": "-pci",
    "pci-transitional": "-pci-transitional",
    "pci-non-transitional": "-pci-non-transitional",
    "mmio": "-device",
}


@dataclass(frozen=True)
class Part:
    """One thing that QEMU makes: ``option`` is ``object``, ``chardev``, ``audiodev`` or ``device``.

    ``first`` is its type or driver, ``settings`` its properties, the id among them (None: left out).
    """

    option: str
    first: str
    settings: Mapping[str, object]

    @property
    def arguments(self) -> tuple[str, str]:
        """It as arguments of the command line."""
        return f"-{self.option}", option(self.first, self.settings)


def driver_of(device: BaseDevice | str, kind: str) -> str:
    """Return QEMU's name of a device on a machine of this kind; raises SpecError for a transport that cannot be."""
    if isinstance(device, str):
        return read_device(device).driver
    if isinstance(device, VirtioDevice):
        return virtio_driver(device.BASE, device.transport, kind, repr(device))
    match device:
        case Device():
            return device.driver
        case VirtioSerialPort():
            return "virtserialport"
        case VirtioConsole():
            return "virtconsole"
        case Dimm():
            return "pc-dimm"
    raise SpecError(f"{device!r} is for vm.plug(): it needs a machine that runs", keyword="devices", value=device)


def virtio_driver(base: str, transport: str | None, kind: str, subject: str) -> str:
    """Return QEMU's name of a virtio device, by its transport; raises SpecError where that cannot be."""
    if transport is None:
        transport = "mmio" if kind == "microvm" else "pci"
    if kind != "other" and (transport == "mmio") != (kind == "microvm"):
        has = "mmio" if kind == "microvm" else "pci"
        raise SpecError(f"{subject}: transport {transport!r} cannot be on machine {kind!r}, which has {has}")
    if transport == "pci-legacy" and base not in _LEGACY:
        raise SpecError(f"{subject}: {base} is newer than virtio 0.9 and has no legacy interface; use 'pci'")
    return base + _SUFFIXES[transport]


def transport_settings(transport: str | None) -> Settings:
    """Return the properties that go with a transport."""
    return {"disable-legacy": False, "disable-modern": True} if transport == "pci-legacy" else {}


def parts(planned: PlannedDevice, kind: str) -> Sequence[Part]:
    """Return what makes a device, in QEMU's order: what is behind it first, itself last. Raises SpecError."""
    device = planned.device
    before, settings = _needed(planned, kind)
    if planned.port:
        settings = {"bus": planned.port, **settings}
    if isinstance(device, VirtioDevice):
        settings |= transport_settings(device.transport)
    driver = driver_of(device, kind)
    return [*before, Part("device", driver, {"id": planned.id, **settings, **device.properties})]


def _needed(planned: PlannedDevice, kind: str) -> tuple[list[Part], Settings]:
    """Return what is behind a device, and the properties that follow from its fields."""
    device = planned.device
    before: list[Part] = []
    settings: Settings = {}
    match device:
        case VirtioRng():
            settings = {"rng": f"{planned.id}-source"}
            before = [Part("object", "rng-random", {"id": settings["rng"], "filename": os.fspath(device.filename)})]
        case VirtioSerialPort() | VirtioConsole():
            before, settings = _port(planned, device, kind)
        case VirtioCrypto():
            settings = {"cryptodev": f"{planned.id}-backend"}
            before = [Part("object", "cryptodev-backend-builtin", {"id": settings["cryptodev"]})]
        case VirtioSound():
            settings = {"audiodev": f"{planned.id}-audio"}
            before = [Part("audiodev", "none", {"id": settings["audiodev"]})]
        case Dimm() | VirtioMem() | VirtioPmem():
            file = device.file if isinstance(device, VirtioPmem) else None
            before = [_memory(planned.id, device.size, file)]
            settings = {"memdev": f"{planned.id}-memory"}
            if not isinstance(device, VirtioPmem):
                settings["node"] = device.node
            if isinstance(device, VirtioMem):
                nothing = device.requested in (0, "0")
                settings["requested-size"] = 0 if nothing else parse_size(device.requested, "B")
    return before, settings


def _memory(name: str, size: int | str | None, file: str | os.PathLike[str] | None = None) -> Part:
    settings: Settings = {"id": f"{name}-memory", "size": parse_size(size or 0, "B")}
    if file is None:
        return Part("object", "memory-backend-ram", settings)
    settings |= {"mem-path": os.fspath(file), "share": True}
    return Part("object", "memory-backend-file", settings)


def _port(planned: PlannedDevice, device: VirtioSerialPort | VirtioConsole, kind: str) -> tuple[list[Part], Settings]:
    # QEMU's working directory is the machine's own: a short name, whatever TMPDIR is (AF_UNIX has 107 bytes).
    chardev = Part("chardev", "socket", {"id": planned.id, "path": planned.id, "server": True, "wait": False})
    settings: Settings = {"chardev": planned.id}
    if isinstance(device, VirtioSerialPort):
        settings["name"] = device.name or planned.id
    if device.bus is not None:
        return [chardev], {"bus": f"{device.bus}.0", **settings}
    bus = f"{planned.id}-bus"
    place: Settings = {"bus": planned.port} if planned.port else {}
    controller = Part("device", virtio_driver("virtio-serial", None, kind, repr(device)), {"id": bus, **place})
    return [controller, chardev], {**settings, "bus": f"{bus}.0"}


def check_known(driver: str, binary: QEMUBinary, subject: str) -> None:
    """Raise HostError when QEMU does not have a device, with those whose names begin as its name does."""
    if driver in binary.devices:
        return
    family = "-".join(driver.split("-")[:2])
    near = sorted(name for name in binary.devices if name.startswith(family))
    raise HostError(
        f"{subject}: QEMU {binary.version_text} has no device {driver!r}",
        hint=f"of {family} it has {', '.join(near)}" if near else "a newer QEMU may have it: --kvm-qemu=PATH",
    )
