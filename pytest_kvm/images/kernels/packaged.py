"""What the packages of a built-in guest's kernel have beside what is in the guest: configuration, all modules."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin.deb import Member, members
from pytest_kvm.images.builtin.pool import Pool
from pytest_kvm.images.builtin.recipe import recipe_for
from pytest_kvm.images.kernels.source import Modules

_MAKING_LIMIT = 300.0  # seconds that another process may take


def packaged_config(suite: str | None, release: str, cache: Path) -> str:
    """Return the kernel's configuration from its package in the cache, "" if it is not there."""
    wanted = {f"boot/config-{release}", f"usr/lib/modules/{release}/config"}
    return next((member.data.decode(errors="replace") for member in _members(suite, cache, wanted.__contains__)), "")


def packaged_modules(suite: str | None, release: str, cache: Path) -> Modules | None:
    """Return all modules of the kernel, unpacked in the cache when they are first wanted; None if they are not there.

    Raises ImageUnavailable when the disk is full.
    """
    import filelock

    folder = cache / "modules"
    root = folder / release
    try:
        folder.mkdir(exist_ok=True)
        with filelock.FileLock(folder / ".lock", timeout=_MAKING_LIMIT):
            if not root.is_dir():
                for left_over in folder.glob("making.*"):
                    shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
                aside = Path(tempfile.mkdtemp(prefix="making.", dir=folder))
                try:
                    _unpack(suite, release, cache, aside)
                    os.replace(aside, root)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ImageUnavailable(
            f"the modules of kernel {release} cannot be unpacked in {folder}: {error}",
            hint="set PYTEST_KVM_CACHE to a directory that you may write, with 200 MB free",
        ) from error
    found = Modules(root)
    return found if found.paths else None


def _unpack(suite: str | None, release: str, cache: Path, into: Path) -> None:
    base = f"usr/lib/modules/{release}/"
    wanted = re.compile(re.escape(base) + r"(modules\.builtin|kernel/.*\.ko(\.\w+)?)")
    for member in _members(suite, cache, lambda path: wanted.fullmatch(path) is not None):
        path = into / member.path.removeprefix(base)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member.data)


def _members(suite: str | None, cache: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    recipe = recipe_for(suite, archive=None, keyring=None)
    pool = Pool(cache / "packages")
    packages = pool.remembered(recipe.kernel) or []
    if pool.missing(packages):
        return
    for package in packages:
        yield from (member for member in members(pool.path(package), wanted) if member.target is None)
