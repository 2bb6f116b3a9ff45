"""Where do disks and kernels come from?

For tests that prepare disks: every verb of ``qemu-img`` is a function here, as in ``images.create(path, "64M")``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvm.images.verbs.bitmaps import (
        bitmap,
        bitmaps,
        clear_bitmap,
        delete_bitmap,
        disable_bitmap,
        enable_bitmap,
        merge_bitmap,
    )
    from pytest_kvm.images.verbs.changing import amend, resize
    from pytest_kvm.images.verbs.looking import check, compare, info, map, measure
    from pytest_kvm.images.verbs.making import convert, create
    from pytest_kvm.images.verbs.overlays import commit, rebase
    from pytest_kvm.images.verbs.results import (
        Bitmap,
        CheckResult,
        Comparison,
        DiskSnapshot,
        Extent,
        ImageInfo,
        Measure,
    )
    from pytest_kvm.images.verbs.snapshots import apply_snapshot, delete_snapshot, snapshot, snapshots

__all__ = [
    "Bitmap",
    "CheckResult",
    "Comparison",
    "DiskSnapshot",
    "Extent",
    "ImageInfo",
    "Measure",
    "amend",
    "apply_snapshot",
    "bitmap",
    "bitmaps",
    "check",
    "clear_bitmap",
    "commit",
    "compare",
    "convert",
    "create",
    "delete_bitmap",
    "delete_snapshot",
    "disable_bitmap",
    "enable_bitmap",
    "info",
    "map",
    "measure",
    "merge_bitmap",
    "rebase",
    "resize",
    "snapshot",
    "snapshots",
]

_HOMES = {
    **dict.fromkeys(("amend", "resize"), "changing"),
    **dict.fromkeys(("check", "compare", "info", "map", "measure"), "looking"),
    **dict.fromkeys(("convert", "create"), "making"),
    **dict.fromkeys(("commit", "rebase"), "overlays"),
    **dict.fromkeys(("apply_snapshot", "delete_snapshot", "snapshot", "snapshots"), "snapshots"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "results" if name[0].isupper() else "bitmaps")
    return getattr(import_module(f"pytest_kvm.images.verbs.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
