"""Snapshots inside qcow2 images."""

from __future__ import annotations

from pytest_kvm.images.verbs.call import Call, PathLike
from pytest_kvm.images.verbs.chain import settle_format
from pytest_kvm.images.verbs.names import LONGEST_SNAPSHOT, existing_name, new_name
from pytest_kvm.images.verbs.reading import read_info
from pytest_kvm.images.verbs.results import DiskSnapshot
from pytest_kvm.spec.wording import Rejected


def snapshots(
    path: PathLike, *, format: str | None = None, force_share: bool = False, qemu: str | None = None
) -> tuple[DiskSnapshot, ...]:
    """Return the snapshots in an image, in the order in which they were made.

    ``format`` is the image's (default: found out), ``force_share`` looks into one in use.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("snapshots", path, qemu)
    call.flags(force_share=force_share)
    return _read(call, format, force_share=force_share)


def snapshot(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Keep a disk as it is now, in the image itself, by a name that no other snapshot in it has.

    The name has 255 bytes at most, and is no number: QEMU would take that for an id. ``format`` is the image's
    (default: found out).

    Raises SpecError, also for an image that is not qcow2; HostError, QemuImgError.
    """
    call = Call("snapshot", path, qemu)
    known = _read(call, format, written=True)
    text = new_name(call, name, "snapshot", LONGEST_SNAPSHOT, [each.name for each in known])
    with call.argument("name", name):
        if text.isdecimal():
            raise Rejected("QEMU would take a number for an id; put a letter before it")
    call.run("snapshot", "-q", "-c", text, str(call.path))


def apply_snapshot(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Make a disk what it was when a snapshot was made; the snapshot stays, what the disk is now is lost.

    ``format`` is the image's (default: found out).

    Raises SpecError, HostError, QemuImgError.
    """
    _do(Call("apply_snapshot", path, qemu), "-a", name, format)


def delete_snapshot(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Delete a snapshot; the disk stays as it is.

    ``format`` is the image's (default: found out).

    Raises SpecError, HostError, QemuImgError.
    """
    _do(Call("delete_snapshot", path, qemu), "-d", name, format)


def _do(call: Call, flag: str, name: str, format_: str | None) -> None:
    known = _read(call, format_, written=True)
    text = existing_name(call, name, "snapshot", [each.name for each in known])
    call.run("snapshot", "-q", flag, text, str(call.path))


def _read(
    call: Call, declared: str | None, *, written: bool = False, force_share: bool = False
) -> tuple[DiskSnapshot, ...]:
    """Return the snapshots that there are."""
    call.existing(call.path, written=written)
    format_ = settle_format(call, call.path, declared, follow=written)
    if format_ != "qcow2":
        raise call.rejected(f"a {format_} image has no snapshots; qcow2 has")
    return read_info(call, call.path, format_, force_share=written or force_share).snapshots
