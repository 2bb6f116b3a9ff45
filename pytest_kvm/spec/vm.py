"""What a test asks of one machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Unpack

from pytest_kvm.spec.construction import check_names, check_values, checked
from pytest_kvm.spec.contradictions import check_together
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.devices.board import VirtioPmem
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.fields import CHECKS, VMFields, is_path
from pytest_kvm.spec.firmware import names_firmware_file
from pytest_kvm.spec.image import FILES, Image, is_address
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.reference import holds_reference, replace_references
from pytest_kvm.spec.share import Share

PATHS = ("kernel", "initrd", "firmware", "cdrom", "user_data")
# The kernel of a built-in guest, by that one's name.
BUILT_IN = "tiny:"


@checked("vm")
@dataclass(frozen=True, kw_only=True)
class VMSpec:
    """What a test asks of one machine: the marker's fields, as they were written.

    ``image`` is a name of the catalogue, a path, an address with its checksum (``https://…#sha256=HEX``), an
    ``Image``, or None for a machine with nothing in it. ``memory`` is in MiB or QEMU's text (None: what the NUMA
    nodes have, else what the image needs, 256 MiB if it does not say); ``numa`` are these nodes. ``append`` is
    added to the image's kernel command line; it accumulates over the levels of markers. ``firmware`` is ``bios``
    (None: the same), ``uefi``, ``uefi-secure``, or a file. ``nics`` None is one NIC on the user network if there is
    an image, ``[]`` no network. ``user_data`` (a script, cloud-config as text or mapping, or a file's path) and
    ``meta_data`` go into the seed of a cloud image; ``seed`` is its kind, False is none, None the image's own.
    ``shares`` are folders of the host. ``devices`` are further ones, ``properties`` are more of them for devices of
    any kind, by their ids. ``extras`` None is balloon, rng, pvpanic, vmgenid and spare root ports if there is an
    image. ``ready`` None is the image's own, ``timeout`` (seconds until the machine is ready) None the session's.
    ``start`` says whether the machine is booted or begins as the clone of one that was. ``gdb`` lets gdb attach to
    it. ``tpm`` is a TPM's version, ``2.0`` or ``1.2`` (True: 2.0), ``watchdog`` what QEMU does when a watchdog
    fires, ``vsock`` gives it an address on vsock. ``fw_cfg`` are files for the guest's firmware and kernel (a text
    is the content), ``smbios`` the tables' fields by their type. The table in the README has every field.

    Raises SpecError for an unknown keyword, a wrong type, a value that cannot be, or fields that contradict
    each other.
    """

    name: str = "vm"
    image: str | os.PathLike[str] | Image | None = "tiny"
    machine: str | None = None
    accel: str = "auto"
    cpu: str | None = None
    smp: int | str = 1
    memory: int | str | None = None
    numa: Sequence[NumaNode] = ()
    kernel: str | os.PathLike[str] | None = None
    initrd: str | os.PathLike[str] | None = None
    append: str = ""
    firmware: str | os.PathLike[str] | None = None
    boot: str | None = None
    drives: Sequence[Drive] = ()
    cdrom: str | os.PathLike[str] | None = None
    nics: Sequence[Nic] | None = None
    hostfwd: Sequence[int | str] = ()
    internet: bool = False
    user_data: str | os.PathLike[str] | Mapping[str, object] | None = None
    meta_data: Mapping[str, object] | None = None
    seed: bool | str | None = None
    shares: Sequence[Share] = ()
    devices: Sequence[str | BaseDevice] = ()
    properties: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    extras: Sequence[str] | None = None
    autostart: bool = True
    ready: str | re.Pattern[str] | None = None
    timeout: float | None = None
    start: str = "auto"
    gdb: bool = False
    tpm: bool | str = False
    watchdog: str | None = None
    vsock: bool = False
    fw_cfg: Mapping[str, str | bytes | os.PathLike[str]] | None = None
    smbios: Mapping[int, Mapping[str, object] | Sequence[Mapping[str, object]]] | None = None
    args: Sequence[str] = ()

    def _check(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        check_values("vm", given, CHECKS)
        check_together(given)
        for name, value in given.items():
            if isinstance(value, list):  # a frozen spec must not change with the list that it was made of
                object.__setattr__(self, name, tuple(value))

    def replace(self, **changes: Unpack[VMFields]) -> VMSpec:
        """Return a copy with other values; raises SpecError as the constructor does."""
        check_names("vm", changes, CHECKS)
        return replace(self, **changes)

    def paths(self) -> Iterator[tuple[str, Path]]:
        """Return the files that the spec names, each with its keyword; those of an Image are ``image.disk`` …"""
        if isinstance(self.image, Image):
            for name in FILES:
                value = getattr(self.image, name)
                if value is not None and not holds_reference(value) and not is_address(value):
                    yield f"image.{name}", Path(value)
        elif self.image is not None and not holds_reference(self.image) and is_path(self.image):
            yield "image", Path(self.image)
        for keyword in PATHS:
            value = getattr(self, keyword)
            if value is not None and not holds_reference(value) and _names_file(keyword, value):
                yield keyword, Path(value)
        for drive in self.drives:
            if isinstance(drive, Drive) and drive.file is not None and not holds_reference(drive.file):
                yield "drives", Path(drive.file)
        for content in (self.fw_cfg or {}).values():
            if isinstance(content, os.PathLike):
                yield "fw_cfg", Path(content)
        for device in self.devices:
            if isinstance(device, VirtioPmem) and device.file is not None and not holds_reference(device.file):
                yield "devices", Path(device.file)


def check_fields(given: Mapping[str, object]) -> None:
    """Check some of the fields, such as one marker's: names, values, and what contradicts each other.

    Raises SpecError.
    """
    check_names("vm", given, CHECKS)
    check_values("vm", given, CHECKS)
    check_together(given)


def resolve(spec: VMSpec, lookup: Callable[[str], object], *, base: Path | None = None) -> VMSpec:
    """Return the spec with every fixture's name replaced by what ``lookup`` returns for it, fully checked.

    ``base`` is the folder that relative paths from fixtures start at. Raises SpecError.
    """
    changes: dict[str, object] = {}
    for each in fields(spec):
        value = getattr(spec, each.name)
        if holds_reference(value):
            changes[each.name] = replace_references(value, lookup)
    check_values("vm", changes, CHECKS)
    return replace(spec, **from_folder(changes, base))  # type: ignore[arg-type]  # checked above


def from_folder(given: Mapping[str, object], base: Path | None) -> dict[str, object]:
    """Return the checked fields with relative paths made absolute, starting at ``base``."""
    if base is None:
        return dict(given)
    absolute = dict(given)
    for keyword in (*PATHS, "image"):
        value = absolute.get(keyword)
        if isinstance(value, Image):
            absolute[keyword] = value.below(base)
        elif isinstance(value, (str, os.PathLike)) and _names_file(keyword, value):
            absolute[keyword] = base / value
    drives = absolute.get("drives")
    if isinstance(drives, Sequence):
        absolute["drives"] = tuple(_drive_from_folder(drive, base) for drive in drives)
    contents = absolute.get("fw_cfg")
    if isinstance(contents, Mapping):
        absolute["fw_cfg"] = {
            name: base / content if isinstance(content, os.PathLike) else content for name, content in contents.items()
        }
    shares = absolute.get("shares")
    if isinstance(shares, Sequence):
        absolute["shares"] = tuple(_share_from_folder(share, base) for share in shares)
    devices = absolute.get("devices")
    if isinstance(devices, Sequence):
        absolute["devices"] = tuple(_device_from_folder(device, base) for device in devices)
    return absolute


def _names_file(keyword: str, value: object) -> bool:
    if keyword == "user_data":
        return isinstance(value, os.PathLike)
    if keyword == "kernel" and str(value).startswith(BUILT_IN):
        return False
    if keyword == "firmware":
        return names_firmware_file(value)
    return keyword != "image" or (isinstance(value, (str, os.PathLike)) and is_path(value))


def _drive_from_folder(drive: object, base: Path) -> object:
    if not isinstance(drive, Drive) or drive.file is None or holds_reference(drive.file):
        return drive
    return replace(drive, file=base / drive.file)


def _share_from_folder(share: object, base: Path) -> object:
    return (
        share if not isinstance(share, Share) or holds_reference(share.host) else replace(share, host=base / share.host)
    )


def _device_from_folder(device: object, base: Path) -> object:
    if not isinstance(device, VirtioPmem) or device.file is None or holds_reference(device.file):
        return device
    return replace(device, file=base / device.file)
