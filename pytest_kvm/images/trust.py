"""Whether a disk image is what it seems: whole, and made of no other files than it should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pytest_kvm.errors import QemuImgError, SpecError
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.images.formats import NotADisk, detect_format, look, names_file, partitions_end, read_qcow2
from pytest_kvm.images.qemu_img import qemu_img
from pytest_kvm.qemu.binary import QEMUBinary

_MIB = 1 << 20
_DEEPEST = 32
# Formats of images that have everything in one file.
_ALONE = ("raw", "vdi", "vhdx", "vpc", "parallels")
# qemu-img(1), check: 2 is corruption, 3 are leaks only, which waste space.
_INCOMPLETE, _CORRUPT, _LEAKS = 1, 2, 3


def check_disk(
    path: Path, format_: str | None, *, binary: QEMUBinary, remembered: Remembered, alone: bool = False
) -> str:
    """Return the format of an image's disk, having looked into it as far as its format goes.

    ``format_`` is what was declared, None: it is found out. With ``alone`` the image may consist of no other files (it
    was fetched); otherwise they must be in its folder, or below. Raises SpecError with what is wrong.
    """
    try:
        _check_kind(path)
        chosen = format_ or look(path)
        if chosen == "raw" and format_ is None:
            _check_raw(path)
        elif chosen == "qcow2":
            _check_chain(path, binary, remembered, alone=alone)
        elif alone:
            _check_format(chosen)
    except NotADisk as reason:
        raise SpecError(f"image {str(path)!r} cannot be used: {reason}", keyword="image", value=path) from None
    except OSError as error:
        raise SpecError(f"image {str(path)!r} cannot be read: {error.strerror}", keyword="image", value=path) from error
    return chosen


def check_references(path: Path) -> None:
    """Look at the other files that a disk consists of, whose format nobody has declared.

    A guest may have written all of it, into what was a raw disk: then it would read files of this host's. Raises
    NotADisk for one that has others than in its own folder, OSError.
    """
    if detect_format(path) == "qcow2":
        _chain(path, alone=False)


def _check_kind(path: Path) -> None:
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode)):  # what a directory is, its reader says
        raise NotADisk("it is neither a file nor a block device")


def _check_format(format_: str) -> None:
    if format_ not in _ALONE:
        raise NotADisk(f"a {format_} image may name other files, and what is fetched has to be whole by itself")


def _check_raw(path: Path) -> None:
    size, end = path.stat().st_size, partitions_end(path)
    if end > size:
        raise NotADisk(
            f"it is truncated: it has {size / _MIB:.1f} MiB, and partitions up to {end / _MIB:.1f} MiB; "
            "fetch it again (format='raw' takes it as it is)"
        )


def _check_chain(path: Path, binary: QEMUBinary, remembered: Remembered, *, alone: bool) -> None:
    def check(image: Path) -> bool:
        try:
            _check_qcow2(image, binary)
        except NotADisk as reason:
            raise NotADisk(str(reason) if image == path else f"{image}, which it is an overlay on: {reason}") from None
        return True

    for each in _chain(path, alone=alone):
        remembered.about(each, "good qcow2", check)


def _chain(path: Path, *, alone: bool) -> list[Path]:
    """Return the qcow2 images that an image consists of, itself first; raises NotADisk for a file that it may not have.

    This reads headers only: before it is known which files an image names, nothing may open it.
    """
    folder = Path(os.path.realpath(_folder(path)))
    found = [path]
    for image in found:
        header = read_qcow2(image)
        if header.encrypted:
            raise NotADisk("it is encrypted")
        if header.corrupt:
            raise NotADisk("it is marked as corrupt; repair it: qemu-img check -r all")
        for what, name in (("a backing file", header.backing), ("a data file", header.data)):
            if name is None:
                continue
            behind = _resolved(image, name, what, None if alone else folder)
            if what == "a backing file":
                kind = header.backing_format or detect_format(behind)
                if kind not in ("raw", "qcow2"):
                    raise NotADisk(f"it has a backing file, {name!r}, of a format that may name other files: {kind}")
                if kind == "qcow2":
                    found.append(behind)
        if len(found) > _DEEPEST:
            raise NotADisk(f"it is an overlay on an overlay, {_DEEPEST} times: it may be on itself")
    return found


def _resolved(image: Path, name: str, what: str, folder: Path | None) -> Path:
    advice = f"make one file of it: qemu-img convert -O qcow2 {image.name} NEW"
    if folder is None:
        raise NotADisk(f"it has {what}, {name!r}; an image that is fetched has to be whole by itself")
    if not names_file(name):
        raise NotADisk(f"it has {what} that is not named by its path, {name!r}; {advice}")
    # As QEMU finds it: beside the image's name, even if that is a link.
    behind = Path(os.path.realpath(_folder(image) / name))
    if not behind.is_relative_to(folder):
        raise NotADisk(f"it has {what} outside its folder, {name!r}; move it there, or {advice}")
    if not behind.is_file():
        raise NotADisk(f"it has {what} that does not exist, {name!r}; {advice}, where it does")
    return behind


def _folder(image: Path) -> Path:
    return Path(os.path.abspath(image)).parent


def _check_qcow2(path: Path, binary: QEMUBinary) -> None:
    """Raise NotADisk with what qemu-img finds wrong."""
    try:
        qemu_img(binary, "check", "-q", "-U", "-f", "qcow2", str(path))
    except QemuImgError as error:
        if error.returncode == _LEAKS:
            return
        lines = error.stderr.strip().splitlines() or [""]
        if error.returncode == _CORRUPT and any("exceeding the end of the file" in line for line in lines):
            size = path.stat().st_size / _MIB
            raise NotADisk(f"it is truncated: it has {size:.1f} MiB, and refers to more; fetch it again") from None
        what = "damaged" if error.returncode == _CORRUPT else "not readable"
        raise NotADisk(f"it is {what}: {lines[0]}; fetch it again, or repair it: qemu-img check -r all") from None
