"""Change an image's size, and what its format lets one choose."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytest_kvm.images.verbs.call import Call, PathLike, Progress
from pytest_kvm.images.verbs.chain import settle_format
from pytest_kvm.images.verbs.options import new_size, option_arguments
from pytest_kvm.images.verbs.reading import read_info
from pytest_kvm.spec.values import one_of, optional
from pytest_kvm.spec.wording import Rejected

_PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_RESERVING = ("falloc", "full")


def resize(
    path: PathLike,
    size: int | str,
    *,
    shrink: bool = False,
    preallocation: str | None = None,
    format: str | None = None,
    qemu: str | None = None,
) -> int:
    """Change the size of an image's disk, and return the new one in bytes.

    ``size`` is the new one (a number: bytes), or with ``+`` or ``-`` before it the change, as in ``"+64M"``; it
    becomes a whole number of sectors of 512 bytes. What would be cut off is lost, so a smaller one is refused unless
    ``shrink`` is said. ``preallocation`` of what is added is off (the default), metadata (qcow2), falloc or full.
    ``format`` is the image's (default: found out). Partitions and file systems in it stay as they are.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("resize", path, qemu)
    call.flags(shrink=shrink)
    with call.argument("preallocation", preallocation):
        optional(one_of(*_PREALLOCATIONS))(preallocation)
    call.existing(call.path, written=True)
    format_ = settle_format(call, call.path, format)
    with call.argument("preallocation", preallocation):
        if preallocation == "metadata" and format_ != "qcow2":
            raise Rejected(f"only qcow2 has metadata of what is not written, and this is {format_}")
    # A machine's disk may be changing: that is for qemu-img itself to refuse.
    old = read_info(call, call.path, format_, force_share=True).virtual_size
    new = new_size(call, size, old)
    with call.argument("size", size):
        if new < old and not shrink:
            raise Rejected(f"the disk has {old} bytes, and all beyond {new} would be lost; shrink=True does it")
        if new < old and preallocation not in (None, "off"):
            raise Rejected("preallocation= is of what is added, and nothing is")
    if new > old and preallocation in _RESERVING:
        _check_room(call, new - old)
    arguments = [f"--preallocation={preallocation}"] if preallocation is not None and new > old else []
    arguments += ["--shrink"] if new < old else []
    call.run("resize", "-q", "-f", format_, *arguments, str(call.path), str(new))
    return new


def _check_room(call: Call, needed: int) -> None:
    """Refuse to begin what there is no room for: halfway, a qcow2 image has grown already."""
    status = os.statvfs(call.path.parent)
    if call.path.is_file() and needed > status.f_bavail * status.f_frsize:
        raise call.no_room(call.path)


def amend(
    path: PathLike,
    options: Mapping[str, object],
    *,
    format: str | None = None,
    progress: Progress = False,
    qemu: str | None = None,
) -> None:
    """Change options of an existing qcow2 image: ``compat``, ``lazy_refcounts``, ``refcount_bits``.

    ``options`` is a mapping, as for ``create``; ``format`` is the image's (default: found out), ``progress`` is told
    how far it is.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("amend", path, qemu)
    arguments = call.reporting(progress)
    call.existing(call.path, written=True)
    format_ = settle_format(call, call.path, format)
    if format_ != "qcow2":
        raise call.rejected(f"a {format_} image has no options that can be changed; qcow2 has some")
    given = option_arguments(call, options, "amend", "-f", format_, format_=format_)
    with call.argument("options", options):
        if not given:
            raise Rejected("give what is to be changed, such as {'lazy_refcounts': True}")
    call.run("amend", "-f", format_, *arguments, *given, str(call.path), progress=progress)
