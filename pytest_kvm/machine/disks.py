"""The files behind a machine's drives: what the test gave is never written unless it said so."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_kvm.errors import HostError, QemuImgError, SpecError
from pytest_kvm.files import why_no_folder, why_unreadable
from pytest_kvm.images.formats import NotADisk, detect_format
from pytest_kvm.images.qemu_img import qemu_img
from pytest_kvm.images.trust import check_references
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import DriveFile, PlannedDrive
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.size import parse_size
from pytest_kvm.spec.vm import VMSpec

# Beside each disk of a saved machine: an empty overlay on it, which a clone copies.
EMPTY = ".empty"
# What is behind a drive without a medium.
NO_MEDIUM = DriveFile(Path(), "raw", read_only=True)


def prepare(
    drives: Sequence[PlannedDrive], folder: Path, binary: QEMUBinary, *, saved: Path | None = None
) -> list[tuple[PlannedDrive, DriveFile]]:
    """Make the files that the drives need in ``folder`` and return what QEMU opens for each.

    A file of the user's gets an overlay, unless ``snapshot=False`` (it is opened for writing, and QEMU locks it) or
    ``readonly=True``. Disks of a ``saved`` machine go on as they are in its folder. They live as long as the machine,
    over all its starts. Raises SpecError for a file that is missing, HostError when qemu-img is, or there is no room.
    """
    try:
        return [(planned, _prepare(planned, folder, binary, saved)) for planned in drives]
    except OSError as error:
        raise HostError(
            f"no disk can be made in {folder}: {error.strerror}", hint="set TMPDIR to a directory with more room"
        ) from error


def write_protected(drive: Drive) -> bool:
    """Return whether the guest gets the file itself, for reading only.

    An IDE disk has no write protection (hw/ide/qdev.c refuses): there a read-only drive is an overlay.
    """
    unprotected = drive.interface == "ide" and drive.media == "disk"
    return drive.file is not None and (drive.media == "cdrom" or (drive.readonly and not unprotected))


def _prepare(planned: PlannedDrive, folder: Path, binary: QEMUBinary, saved: Path | None) -> DriveFile:
    if planned.ejected:
        return NO_MEDIUM
    drive = planned.drive
    empty = saved / (planned.id + EMPTY) if saved is not None else None
    if empty is not None and empty.exists():
        overlay = folder / f"{planned.id}.qcow2"
        shutil.copyfile(empty, overlay)
        overlay.chmod(0o600)
        return DriveFile(overlay, "qcow2")
    if drive.file is None:
        return _fresh(planned, folder, binary)
    path = Path(drive.file)
    format_ = format_of(drive)
    if write_protected(drive):
        return DriveFile(path, format_, read_only=True)
    if drive.snapshot or drive.readonly:
        overlay = folder / f"{planned.id}.qcow2"
        # A relative name would be looked for beside the overlay.
        _create(planned, binary, "-f", "qcow2", "-F", format_, "-b", os.path.abspath(path), str(overlay))
        return DriveFile(overlay, "qcow2")
    return DriveFile(path, format_)


def _fresh(planned: PlannedDrive, folder: Path, binary: QEMUBinary) -> DriveFile:
    drive = planned.drive
    if drive.size is None:
        raise SpecError(f"drive {planned.id!r} has neither file nor size", keyword="drives", value=drive)
    size = parse_size(drive.size, "B")
    format_ = drive.format or "raw"
    path = folder / f"{planned.id}.{format_}"
    if format_ == "raw":
        with path.open("wb") as file:
            file.truncate(size)  # sparse
    else:
        _create(planned, binary, "-f", format_, str(path), str(size))
    return DriveFile(path, format_)


def format_of(drive: Drive) -> str:
    """Return the format of a drive's file as it is opened: what was declared, qcow2 for what begins like one, or raw.

    Raises SpecError when the file cannot be read.
    """
    if drive.format is not None or drive.file is None:
        return drive.format or "raw"
    try:
        return detect_format(Path(drive.file))
    except OSError as error:
        raise SpecError(f"{drive.file}: {error.strerror}", value=drive.file) from error


def check_files(spec: VMSpec) -> None:
    """Check that files and folders that a spec names are there to be read, and that no disk leads to others by itself.

    Raises SpecError for the first that is not.
    """
    for name, path in spec.paths():
        keyword, _, field = name.partition(".")
        subject = f"vm({keyword}={str(path)!r})"
        if field or keyword == "drives":
            subject = f"{'Image' if field else 'Drive'}({field or 'file'}={str(path)!r})"
        reason = why_unreadable(path)
        if reason is not None:
            raise SpecError(f"{subject}: {reason}", keyword=keyword, value=path)
    for share in spec.shares:
        reason = why_no_folder(share.host)
        if reason is not None:
            raise SpecError(f"Share(host={str(share.host)!r}): {reason}", keyword="shares", value=share)
    for drive in spec.drives:
        check_references_of(drive)


def check_references_of(drive: Drive) -> None:
    """Check that a drive's file leads to no others that nobody named; raises SpecError."""
    if drive.file is None or drive.format is not None:
        return
    try:
        check_references(Path(str(drive.file)))
    except NotADisk as reason:
        raise SpecError(
            f"Drive(file={str(drive.file)!r}): it looks like qcow2, and {reason}. A guest may have written that into a "
            "raw disk; say format='qcow2' if it is what you mean, or format='raw'",
            keyword="drives",
            value=drive,
        ) from None
    except OSError as error:
        raise SpecError(f"Drive(file={str(drive.file)!r}): {error.strerror}", keyword="drives", value=drive) from error


def _create(planned: PlannedDrive, binary: QEMUBinary, *arguments: str) -> None:
    try:
        qemu_img(binary, "create", "-q", *arguments)
    except QemuImgError as error:
        if error.nospace:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise SpecError(f"{planned.drive!r}: {error}", keyword="drives", value=planned.drive) from error
