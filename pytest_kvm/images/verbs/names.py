"""Names of what is in an image: snapshots and bitmaps."""

from __future__ import annotations

from collections.abc import Collection

from pytest_kvm.images.verbs.call import Call
from pytest_kvm.images.verbs.reading import read_info
from pytest_kvm.spec.wording import Rejected, check_sayable, did_you_mean, expected_type, shown

# block/snapshot.h: QEMUSnapshotInfo has 256 bytes, and cuts what is longer; block/dirty-bitmap.h.
LONGEST_SNAPSHOT = 255
LONGEST_BITMAP = 1023


def new_name(call: Call, name: object, what: str, longest: int, taken: Collection[str]) -> str:
    """Return the name of something that is to be made; raises SpecError when it cannot be, or is taken."""
    with call.argument("name", name):
        text = _text(name, what)
        length = len(text.encode(errors="surrogateescape"))
        if length > longest:
            raise Rejected(f"it has {length} bytes, and the name of a {what} has {longest} at most")
        if text in taken:
            raise Rejected(f"there is a {what} of this name already; images.delete_{what}(…) deletes it")
    return text


def existing_name(call: Call, name: object, what: str, known: Collection[str], *, keyword: str = "name") -> str:
    """Return the name of something that is there; raises SpecError when it is not."""
    with call.argument(keyword, name):
        text = _text(name, what)
        if text not in known:
            hint = did_you_mean(text, known) if known else f"there is no {what} at all"
            raise Rejected(f"{str(call.path)!r} has no such {what}; {hint}")
    return text


def _text(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise expected_type(f"the name of a {what}", name)
    if not name:
        raise Rejected(f"expected the name of a {what}, got {shown(name)}")
    check_sayable(name)
    return name


def snapshot_arguments(call: Call, format_: str, name: str | None, *, force_share: bool = False) -> list[str]:
    """Return the arguments that choose a snapshot to be read; raises SpecError when there is none of this name."""
    if name is None:
        return []
    with call.argument("snapshot", name):
        if format_ != "qcow2":
            raise Rejected(f"only qcow2 has snapshots, and this is {format_}")
    known = [each.name for each in read_info(call, call.path, format_, force_share=force_share).snapshots]
    text = existing_name(call, name, "snapshot", known, keyword="snapshot")
    return ["-l", f"snapshot.name={text.replace(',', ',,')}"]
