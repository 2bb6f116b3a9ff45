"""The built-in guest: found in the cache in a few milliseconds, or made there once."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.room import FULL
from pytest_kvm.images.builtin.packages import Package
from pytest_kvm.images.builtin.pool import Pool
from pytest_kvm.images.builtin.recipe import Recipe, recipe_for
from pytest_kvm.images.keys import Keys, existing_keys
from pytest_kvm.images.progress import Report, say_nothing
from pytest_kvm.spec.image import Image

_BUILD_LIMIT = 1800.0  # seconds that another process may take for a build before we stop waiting for it
# loglevel=5 keeps the boot quiet and still shows WARN(), whose lines have level 4.
_APPEND = "console=ttyS0 panic=-1 loglevel=5"
_PROMPT = r"root@tiny:\S*# "
DIRECT = "kernel.elf"
"""A guest's kernel unpacked, which QEMU starts by itself (PVH); beside its other files, where it could be made."""


def tiny_image(
    suite: str | None = None,
    *,
    offline: bool = False,
    archive: str | None = None,
    keyring: str | None = None,
    refresh: bool = False,
    report: Report | None = None,
) -> Image:
    """Return the built-in guest, built if the cache does not have it.

    ``suite`` is whose kernel it gets (None: the default suite's), ``archive`` an archive's address instead of
    apt's own, ``keyring`` the file of keys that verifies it, ``offline`` forbids downloads, ``refresh`` asks
    the archive for newer packages, ``report`` is told what takes time. Raises ImageUnavailable, also when the
    disk is full, and SpecError if ``archive`` is not an http(s) address.
    """
    recipe = recipe_for(suite, archive=archive, keyring=keyring)
    cache = cache_dir()
    try:
        found = None if refresh else _cached(cache, recipe)
        if found is not None:
            return found
        return _build_alone(cache, recipe, offline=offline, refresh=refresh, report=report or say_nothing)
    except OSError as error:
        reason = error.strerror if error.errno in FULL else str(error)
        raise ImageUnavailable(
            f"the built-in guest {recipe.name} cannot be made in {cache}: {reason}",
            hint="set PYTEST_KVM_CACHE to a directory that you may write, with 700 MB free",
        ) from error


def direct_kernel(kernel: Path) -> Path:
    """Return the same kernel unpacked, if it is that of a built-in guest; otherwise the kernel as it was given."""
    direct = kernel.parent / DIRECT
    return direct if kernel.parent.parent == cache_dir() / "images" and direct.is_file() else kernel


def cached_directory(cache: Path, suite: str) -> Path | None:
    """Return where the guest ``tiny:SUITE`` is in the cache, None if it is not, or cannot be made on this host."""
    try:
        found = _cached(cache, recipe_for(suite, archive=None, keyring=None))
    except (ImageUnavailable, SpecError):
        return None
    return Path(found.kernel).parent if found is not None and found.kernel is not None else None


def _cached(cache: Path, recipe: Recipe) -> Image | None:
    keys = existing_keys(cache / "ssh")
    if keys is None:
        return None
    pool = Pool(cache / "packages")
    packages: list[list[Package]] = []
    for selection in recipe.selections:
        remembered = pool.remembered(selection)
        if remembered is None:
            return None
        packages.append(remembered)
    directory = recipe.directory(cache, packages, keys)
    return _image(recipe, directory, keys) if directory.is_dir() else None


def _image(recipe: Recipe, directory: Path, keys: Keys) -> Image:
    return Image(
        name=recipe.name,
        kernel=directory / "vmlinuz",
        initrd=directory / "initrd.img",
        append=_APPEND,
        shell=True,
        ssh_user="root",
        ssh_key=keys.client,
        ssh_host_key=keys.host_public,
        login="root",
        prompt=_PROMPT,
        seed=False,
    )


def _build_alone(cache: Path, recipe: Recipe, *, offline: bool, refresh: bool, report: Report) -> Image:
    import filelock

    from pytest_kvm.images.builtin.build import Builder

    images = cache / "images"
    images.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(images / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        report(f"waiting for another process that makes a built-in guest in {cache}")
        try:
            lock.acquire(timeout=_BUILD_LIMIT)
        except filelock.Timeout as error:
            raise ImageUnavailable(
                f"the built-in guest {recipe.name} is not there: another process has been busy with one in"
                f" {cache} for {_BUILD_LIMIT / 60:.0f} min"
            ) from error
    try:
        found = None if refresh else _cached(cache, recipe)
        if found is not None:
            return found
        builder = Builder(cache, recipe, offline=offline, refresh=refresh, report=report)
        return _image(recipe, *builder.build())
    finally:
        lock.release()
