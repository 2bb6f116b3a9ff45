"""What did killed processes leave in the cache? Builds of guests, and files that were being written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pytest_kvm.files import unfinished
from pytest_kvm.host.sweep import Left, Removed, Swept
from pytest_kvm.images.builtin.build import left_over

# Writing one takes milliseconds (seconds).
_AGE = 3600.0
_FOLDERS = ("host", "images", "packages", "ssh", "templates")


def sweep_cache(cache: Path, *, dry_run: bool = False) -> Swept:
    """Remove it, with ``dry_run`` only return it; what was fetched in part stays, the next download goes on with it.

    Raises OSError.
    """
    import filelock

    swept = Swept()
    for folder in _FOLDERS:
        _remove(unfinished(cache / folder, _AGE), swept, dry_run)
    builds = left_over(cache)
    if builds:
        lock = filelock.FileLock(cache / "images" / ".lock")
        try:
            with lock.acquire(timeout=0):
                _remove(left_over(cache), swept, dry_run)
        except filelock.Timeout:
            swept.left += [Left(path, "a guest is being built now", used=True) for path in builds]
    return swept


def _remove(paths: Iterable[Path], swept: Swept, dry_run: bool) -> None:
    for path in paths:
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        size = sum(file.lstat().st_blocks * 512 for file in files)
        if not dry_run:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        swept.removed.append(Removed(path, size))
