"""The virtio devices besides disks (``Drive``), network cards (``Nic``) and folders (``Share``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pytest_kvm.spec.construction import checked
from pytest_kvm.spec.devices.base import BaseDevice, VirtioDevice
from pytest_kvm.spec.values import Check, identifier, optional, path, text

_PORT_NAME = text("the name of a port such as 'org.example.0'", r"[A-Za-z0-9._-]+")


@checked("VirtioBalloon", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioBalloon(VirtioDevice):
    """A memory balloon, in place of the one that every machine with an image has.

    Properties are, among others, ``deflate-on-oom`` and ``free-page-reporting``.
    """

    KIND = "balloon"
    BASE = "virtio-balloon"


@checked("VirtioRng", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioRng(VirtioDevice):
    """An entropy source that reads the host's file ``filename``, in place of the one that a machine with an image has.

    Properties are, among others, ``max-bytes`` (in ``period`` milliseconds).
    """

    KIND = "rng"
    BASE = "virtio-rng"
    OWN = ("id", "rng")
    CHECKS: ClassVar[Mapping[str, Check]] = {"filename": path}

    filename: str | os.PathLike[str] = "/dev/urandom"


@checked("VirtioSCSI", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioSCSI(VirtioDevice):
    """A SCSI host adapter; the first one that is declared has the drives with ``interface="scsi"``.

    Properties are, among others, ``num_queues`` and ``virtqueue_size``.
    """

    KIND = "scsi"
    BASE = "virtio-scsi"


@checked("VirtioSerial", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioSerial(VirtioDevice):
    """A bus for ports and consoles; each that does not name its ``bus`` gets one of its own."""

    KIND = "serial"
    BASE = "virtio-serial"


@checked("VirtioSerialPort", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioSerialPort(BaseDevice):
    """A port between guest and test: ``/dev/virtio-ports/NAME`` there, ``vm.device(id).connect()`` here.

    ``name`` is what the guest knows it by (default: the id), ``bus`` the id of a VirtioSerial.
    """

    KIND = "port"
    OWN = ("id", "name", "chardev", "bus")
    CHECKS: ClassVar[Mapping[str, Check]] = {"name": optional(_PORT_NAME), "bus": optional(identifier)}

    name: str | None = None
    bus: str | None = None


@checked("VirtioConsole", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioConsole(BaseDevice):
    """A console, ``/dev/hvc0`` … in the guest, ``vm.device(id).connect()`` here; ``bus`` is the id of a VirtioSerial.

    What the guest writes while nobody reads is lost.
    """

    KIND = "console"
    OWN = ("id", "chardev", "bus")
    CHECKS: ClassVar[Mapping[str, Check]] = {"bus": optional(identifier)}

    bus: str | None = None


@checked("VirtioGPU", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioGPU(VirtioDevice):
    """A graphics card without VGA. Properties are, among others, ``max_outputs``, ``xres`` and ``yres``."""

    KIND = "gpu"
    BASE = "virtio-gpu"


@checked("VirtioKeyboard", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioKeyboard(VirtioDevice):
    """A keyboard."""

    KIND = "keyboard"
    BASE = "virtio-keyboard"


@checked("VirtioMouse", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioMouse(VirtioDevice):
    """A mouse."""

    KIND = "mouse"
    BASE = "virtio-mouse"


@checked("VirtioTablet", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioTablet(VirtioDevice):
    """A pointer with absolute positions."""

    KIND = "tablet"
    BASE = "virtio-tablet"


@checked("VirtioMultitouch", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioMultitouch(VirtioDevice):
    """A touch screen (QEMU 8.1 and newer)."""

    KIND = "multitouch"
    BASE = "virtio-multitouch"


@checked("VirtioCrypto", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioCrypto(VirtioDevice):
    """A crypto device, with the ciphers that QEMU has itself."""

    KIND = "crypto"
    BASE = "virtio-crypto"
    OWN = ("id", "cryptodev")


@checked("VirtioIOMMU", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioIOMMU(VirtioDevice):
    """An IOMMU for the devices of PCI: with it, those with ``iommu_platform=True`` need their guest to use it."""

    KIND = "iommu"
    BASE = "virtio-iommu"


@checked("VirtioSound", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioSound(VirtioDevice):
    """A sound card that nobody hears (QEMU 8.2 and newer)."""

    KIND = "sound"
    BASE = "virtio-sound"
    OWN = ("id", "audiodev")
