"""Keep what takes long to make in the cache, by the content of its maker."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock

from pytest_kvm.host.cache import cache_dir

_MAKING_LIMIT = 1800.0  # seconds that another process may take
_UNUSED_LIMIT = 86400.0  # seconds: sessions of another version of the tests may still use theirs


def kept(name: str, make: Callable[[Path], Path], sources: Sequence[Path], *, made_from: str = "") -> Path:
    """Return the file that ``make`` makes in a folder, made now if the cache does not have it.

    ``sources`` are the files and folders of the maker, ``made_from`` says of what it makes it: where either differs,
    it is made anew. One process makes it while others wait; what nobody has used for a day is removed.
    """
    folder = cache_dir() / "test-guests"
    folder.mkdir(exist_ok=True)
    directory = folder / f"{name}-{_digest(sources, made_from)}"
    with filelock.FileLock(folder / f"{name}.lock", timeout=_MAKING_LIMIT):
        for left_over in folder.glob(f"{name}.making.*"):
            shutil.rmtree(left_over)  # of a process that was killed
        if not directory.is_dir():
            aside = Path(tempfile.mkdtemp(prefix=f"{name}.making.", dir=folder))
            try:
                made = make(aside / "files")
                (aside / "name").write_text(made.relative_to(aside).as_posix())
                os.replace(aside, directory)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        os.utime(directory)
        for other in folder.glob(f"{name}-*"):
            if other.stat().st_mtime < time.time() - _UNUSED_LIMIT:
                shutil.rmtree(other)
    return directory / (directory / "name").read_text()


def _digest(sources: Sequence[Path], made_from: str) -> str:
    digest = hashlib.sha256(made_from.encode())
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(source.parent)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
