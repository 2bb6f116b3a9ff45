"""Make a built-in guest in the cache: one process at a time, visible when complete."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin.apt import AptSource
from pytest_kvm.images.builtin.archive import ArchiveSource
from pytest_kvm.images.builtin.packages import Package, PackageIndex
from pytest_kvm.images.builtin.pool import Pool, Selection, Source
from pytest_kvm.images.builtin.recipe import FORMAT, Recipe
from pytest_kvm.images.builtin.rootfs import assemble
from pytest_kvm.images.builtin.tiny import DIRECT
from pytest_kvm.images.builtin.vmlinux import unpacked
from pytest_kvm.images.keys import Keys, obtain_keys
from pytest_kvm.images.progress import Report


def left_over(cache: Path) -> list[Path]:
    """Return what builds left that were killed; the caller holds the cache's lock."""
    return [*(cache / "images").glob("building.*"), *(cache / "packages").glob("partial.*")]


class Builder:
    """Makes the guest of one recipe; the caller holds the cache's lock while it is used.

    ``offline`` forbids downloads, ``refresh`` asks the archive again instead of using what is remembered.
    """

    def __init__(self, cache: Path, recipe: Recipe, *, offline: bool, refresh: bool, report: Report) -> None:
        self._cache = cache
        self._recipe = recipe
        self._offline = offline
        self._refresh = refresh
        self._report = report
        self._pool = Pool(cache / "packages")
        self._indexes: dict[str, PackageIndex] = {}

    def build(self) -> tuple[Path, Keys]:
        """Return the guest's directory and keys. Raises ImageUnavailable, and OSError if the disk is full."""
        for path in left_over(self._cache):
            shutil.rmtree(path, ignore_errors=True)
        keys = obtain_keys(self._cache / "ssh")
        packages = [self._obtain(selection) for selection in self._recipe.selections]
        directory = self._recipe.directory(self._cache, packages, keys)
        if directory.is_dir():
            return directory, keys
        self._report(f"building the built-in guest {self._recipe.name} (once; it is kept in {self._cache})")
        aside = Path(tempfile.mkdtemp(prefix="building.", dir=self._cache / "images"))
        try:
            self._assemble(packages, keys, aside)
            os.replace(aside, directory)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return directory, keys

    def _assemble(self, packages: Sequence[Sequence[Package]], keys: Keys, into: Path) -> None:
        userland, kernel = ([self._pool.path(package) for package in selected] for selected in packages)
        guest = assemble(kernel, userland, keys, into)
        info = {
            "format": FORMAT,
            "suite": self._recipe.kernel.suite,
            "kernel_release": guest.release,
            "missing_modules": guest.missing_modules,
            "packages": [
                {key: asdict(package)[key] for key in ("name", "version", "architecture", "sha256")}
                for selected in packages
                for package in selected
            ],
        }
        (into / "vmlinuz").write_bytes(guest.kernel)
        direct = unpacked(guest.kernel)
        if direct is not None:
            (into / DIRECT).write_bytes(direct)
        (into / "initrd.img").write_bytes(guest.initrd)
        (into / "info.json").write_text(f"{json.dumps(info, indent=1)}\n", encoding="utf-8")

    def _obtain(self, selection: Selection) -> list[Package]:
        """Return a selection's packages, which are in the pool then."""
        remembered = None if self._refresh else self._pool.remembered(selection)
        if remembered is not None and not self._pool.missing(remembered):
            return remembered
        if self._offline:
            raise ImageUnavailable(
                f"the built-in guest {self._recipe.name} is not in the cache {self._cache},"
                " and --kvm-offline forbids downloads",
                hint="run once without --kvm-offline, or give an image with --kvm-image=PATH",
            )
        source = self._source()
        if remembered is not None:
            try:
                self._fetch(selection, remembered, source)
            except ImageUnavailable as error:
                # They may be gone from the archive, which keeps the newest only: ask it again.
                self._report(f"{error}".partition("\n")[0])
            else:
                return remembered
        packages = self._pool.resolve(selection, self._index(selection.suite, source))
        self._fetch(selection, packages, source)
        return packages

    def _index(self, suite: str, source: Source) -> PackageIndex:
        if suite not in self._indexes:
            self._indexes[suite] = source.index(suite)
        return self._indexes[suite]

    def _fetch(self, selection: Selection, packages: Sequence[Package], source: Source) -> None:
        missing = self._pool.missing(packages)
        if missing:
            size = sum(package.size for package in missing) / 1e6
            self._report(f"downloading {len(missing)} package(s) of {selection.suite}, {size:.1f} MB")
        self._pool.fetch(selection, packages, source)

    def _source(self) -> Source:
        recipe = self._recipe
        if recipe.archive is not None:
            return ArchiveSource(recipe.distribution, recipe.archive, keyring=recipe.keyring, report=self._report)
        if shutil.which("apt-get") is None:
            raise ImageUnavailable(
                f"the built-in guest {recipe.name} cannot be made: no apt-get is here to fetch its packages",
                hint="name an archive of Debian packages with --kvm-archive=URL, or use --kvm-image=cirros",
            )
        return AptSource(recipe.distribution, self._cache / "apt", keyring=recipe.keyring, report=self._report)
