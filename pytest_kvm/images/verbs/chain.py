"""Which format has an image, and which files does it consist of? Read from headers, before QEMU opens anything."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pytest_kvm.files import why_unreadable
from pytest_kvm.images.formats import NotADisk, Qcow2, detect_format, look, names_file, read_qcow2
from pytest_kvm.images.trust import check_references
from pytest_kvm.images.verbs.call import Call
from pytest_kvm.spec.drive import FORMATS
from pytest_kvm.spec.values import one_of, optional
from pytest_kvm.spec.wording import Rejected

# Formats whose images QEMU can put on another file (bdrv_change_backing_file).
OVERLAYS = ("qcow2", "qed")


def settle_format(call: Call, file: Path, declared: str | None, *, keyword: str = "format", follow: bool = True) -> str:
    """Return the format of an existing image.

    With ``follow`` QEMU is going to open all that it consists of: a chain that cannot be opened, or that nobody has
    declared and that leads out of the image's folder, is refused with a SpecError.
    """
    with call.argument(keyword, declared):
        optional(one_of(*FORMATS))(declared)
    whose = "" if file == call.path else f"{str(file)!r}: "
    try:
        format_ = declared or look(file)
        if format_ == "qcow2":
            header = read_qcow2(file)
            if follow:
                _check_opening(file, header, keyword if declared is None else None)
    except NotADisk as reason:
        raise call.rejected(f"{whose}{reason}") from None
    except OSError as error:
        raise call.rejected(f"{whose}{error.strerror}") from error
    return format_


def _check_opening(file: Path, header: Qcow2, undeclared: str | None) -> None:
    """Refuse a qcow2 image that cannot be opened, or that should not be when nobody has declared its format."""
    if header.encrypted:
        raise NotADisk("it is encrypted, and no secret can be given here; qemu-img itself takes one")
    find_chain(file, "qcow2")
    if undeclared is None or (header.backing, header.data) == (None, None):
        return
    try:
        check_references(file)
    except NotADisk as reason:
        raise NotADisk(
            f"it looks like qcow2, and {reason}. A guest may have written that into a raw disk; say "
            f"{undeclared}='qcow2' if it is what you mean, or {undeclared}='raw'"
        ) from None


def find_chain(file: Path, format_: str) -> list[Path]:
    """Return the files that an image is an overlay on, itself first, as far as they are files that one knows of.

    QEMU would never come back from a chain that has no end. Raises NotADisk for one, and for one with a file that is
    missing; OSError.
    """
    chain = [file]
    seen = {os.path.realpath(file)}
    while format_ == "qcow2":
        header = read_qcow2(chain[-1])
        name = header.backing
        if name is None or not names_file(name):
            break
        # As QEMU finds it: beside the image's name, even if that is a link.
        behind = chain[-1].parent / name
        reason = why_unreadable(behind)
        if reason is not None:
            raise NotADisk(f"the backing file {str(behind)!r}: {reason}; images.rebase(…, unsafe=True) names another")
        chain.append(behind)
        if os.path.realpath(behind) in seen:
            raise NotADisk(f"it is an overlay on itself: {' on '.join(repr(str(image)) for image in chain)}")
        seen.add(os.path.realpath(behind))
        format_ = header.backing_format or detect_format(behind)
    return chain


def settle_backing(call: Call, backing: Path, declared: str | None) -> str:
    """Return the format of a file that becomes an image's backing file: which has to be said."""
    call.existing(backing, "the backing file")
    if declared is None:
        hint = "or 'raw', if that is what it is"
        with suppress(NotADisk, OSError):
            hint = f"it looks like {look(backing)}"
        with call.argument("backing_format", declared):
            raise Rejected(f"say its format, which is never guessed; {hint}")
    return settle_format(call, backing, declared, keyword="backing_format")
