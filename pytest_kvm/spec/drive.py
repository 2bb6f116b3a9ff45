"""A drive of a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.devices.base import TRANSPORTS
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.values import Check, boolean, identifier, one_of, optional, path, properties, text, whole
from pytest_kvm.spec.wording import Rejected, expected_type, listed, shown

INTERFACES = ("virtio", "ide", "scsi", "nvme", "usb", "floppy")
CDROM_INTERFACES = ("ide", "scsi", "usb")
MEDIA = ("disk", "cdrom")
CACHES = ("none", "writeback", "writethrough", "directsync", "unsafe")
# Formats that qemu-img of QEMU 7.2 can read from one file.
FORMATS = (
    *("raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc"),
    *("parallels", "luks", "bochs", "cloop", "dmg"),
)
# hw/block/virtio-blk.c, hw/ide, hw/nvme: 20 bytes; hw/scsi/scsi-disk.c: 36; a floppy has none.
SERIAL_LENGTHS = {"virtio": 20, "ide": 20, "nvme": 20, "scsi": 36, "usb": 36, "floppy": 0}
SECTOR = 512


def _size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type("a size such as '64M' (a number: bytes)", value)
    if read_size(value, "B") < SECTOR:
        raise Rejected(f"a disk has at least {SECTOR} bytes, got {shown(value)}; write '64M' for 64 MiB")


CHECKS: dict[str, Check] = {
    "file": optional(path),
    "size": optional(_size),
    "format": optional(one_of(*FORMATS)),
    "interface": one_of(*INTERFACES),
    "index": optional(whole("an index", 0)),
    "media": one_of(*MEDIA),
    "cache": optional(one_of(*CACHES)),
    "snapshot": optional(boolean),
    "readonly": boolean,
    "serial": optional(text("a serial number")),
    "bootindex": optional(whole("a boot index", 0)),
    "transport": optional(one_of(*TRANSPORTS)),
    "id": optional(identifier),
    "properties": properties("id", "drive", "serial", "bootindex"),
}


@checked("Drive", postponable=True)
@dataclass(frozen=True, repr=False)
class Drive:
    """A disk, CD-ROM or floppy: an existing file, or a fresh empty one.

    ``file`` is a path, relative to the folder of the test file; ``size`` makes an empty disk instead, that
    lives as long as the machine's fixture (QEMU's text such as ``"64M"``; a number: bytes). ``format`` is
    the file's (default: found out). ``interface`` is virtio, ide, scsi, nvme, usb or floppy (default
    virtio, for a cdrom ide), ``index`` the place on it, ``media`` disk or cdrom, ``cache`` QEMU's cache
    mode. ``snapshot`` says that what the guest writes is thrown away: always so for a given file (default
    True) unless False is said. ``readonly`` refuses writes. ``serial`` is what the guest sees,
    ``bootindex`` the place in the boot order, ``transport`` how a virtio disk is attached (as for
    VirtioDevice), ``id`` QEMU's id (default ``disk0``, ``cdrom0`` …), ``properties`` more properties of the
    device.

    Raises SpecError when a value cannot be, or two contradict each other.
    """

    file: str | os.PathLike[str] | None = None
    size: int | str | None = field(default=None, kw_only=True)
    format: str | None = field(default=None, kw_only=True)
    interface: str = field(default="", kw_only=True)
    index: int | None = field(default=None, kw_only=True)
    media: str = field(default="disk", kw_only=True)
    cache: str | None = field(default=None, kw_only=True)
    snapshot: bool | None = field(default=None, kw_only=True)
    readonly: bool = field(default=False, kw_only=True)
    serial: str | None = field(default=None, kw_only=True)
    bootindex: int | None = field(default=None, kw_only=True)
    transport: str | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)
    properties: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        """Fill in what follows from other fields."""
        for name, value in self._implied().items():
            given = getattr(self, name)
            if given is None or (isinstance(given, str) and not given):
                object.__setattr__(self, name, value)

    def _implied(self) -> dict[str, object]:
        on_cdrom = isinstance(self.media, str) and self.media == "cdrom"
        return {"interface": "ide" if on_cdrom else "virtio", "snapshot": self.file is not None}

    def __repr__(self) -> str:
        return short_repr(self, implied=self._implied())

    def _check(self) -> None:
        check_values("Drive", {name: getattr(self, name) for name in CHECKS}, CHECKS)
        if (self.file is None) == (self.size is None):
            what = "neither" if self.file is None else "both"
            raise SpecError(
                f"Drive(file={shown(self.file)}, size={shown(self.size)}): give a file or a size, not {what}"
            )
        if self.size is not None:
            self._check_fresh()
        elif self.snapshot is False and self.readonly is True:
            raise self._contradiction("snapshot", "readonly", "nothing is written to a read-only drive")
        self._check_interface()

    def _check_fresh(self) -> None:
        if self.snapshot is True:
            raise self._contradiction("size", "snapshot", "a fresh disk is thrown away anyway; leave out snapshot=")
        if self.readonly is True:
            raise self._contradiction("size", "readonly", "an empty disk that cannot be written is of no use")
        if self.media == "cdrom":
            raise self._contradiction("size", "media", "a CD-ROM needs a file")

    def _check_interface(self) -> None:
        if holds_reference(self.interface):
            return
        if self.media == "cdrom" and self.interface not in CDROM_INTERFACES:
            raise self._contradiction("media", "interface", f"a CD-ROM is on {listed(CDROM_INTERFACES)}")
        if self.interface == "floppy" and isinstance(self.index, int) and self.index > 1:
            raise self._contradiction("interface", "index", "there are two floppy drives, 0 and 1")
        if self.transport is not None and self.interface != "virtio":
            raise self._contradiction("interface", "transport", "only virtio disks have one; of SCSI, VirtioSCSI has")
        longest = SERIAL_LENGTHS[self.interface]
        if isinstance(self.serial, str) and len(self.serial.encode()) > longest:
            raise self._contradiction("interface", "serial", f"it has room for {longest} bytes of serial number")

    def _contradiction(self, one: str, other: str, reason: str) -> SpecError:
        subject = ", ".join(f"{name}={shown(getattr(self, name))}" for name in (one, other))
        return SpecError(f"Drive({subject}): {reason}")
