"""What a built-in guest is made from, and where in the cache one of exactly that content is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.images.builtin.distribution import Distribution, distribution_for, os_release
from pytest_kvm.images.builtin.packages import Package
from pytest_kvm.images.builtin.pool import Selection
from pytest_kvm.images.builtin.rootfs import recipe_digest
from pytest_kvm.images.keys import Keys

FORMAT = 2
"""Version of info.json and of the layout of a guest's directory."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides which guest is meant (``name``: ``tiny:SUITE``), and where its packages come from."""

    name: str
    distribution: Distribution
    userland: Selection
    kernel: Selection
    archive: str | None = None
    keyring: str | None = None

    @property
    def selections(self) -> tuple[Selection, Selection]:
        """The packages: programs first, then the kernel's."""
        return self.userland, self.kernel

    def directory(self, cache: Path, packages: Sequence[Sequence[Package]], keys: Keys) -> Path:
        """Return where a guest from these packages, with these keys, is kept."""
        content = [
            str(FORMAT),
            recipe_digest(),
            keys.client_public,
            keys.host_public,
            *(package.sha256 for selected in packages for package in selected),
        ]
        digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
        return cache / "images" / f"{self.name.replace(':', '-')}-{digest}"


def recipe_for(suite: str | None, *, archive: str | None, keyring: str | None) -> Recipe:
    """Return the recipe of ``tiny`` (None) or ``tiny:SUITE`` on this host.

    The kernel is the suite's, the programs are always the default suite's, so that guests differ in one thing
    only. Raises ImageUnavailable if this host has another distribution's packages only.
    """
    distribution, suite = distribution_for(suite, release=os_release(), archive=archive)
    origin = distribution.origin.lower()
    # What one archive was asked must not be remembered for another.
    if archive is not None:
        origin += "-" + hashlib.sha256(archive.encode()).hexdigest()[:8]
    base = distribution.default_suite
    return Recipe(
        name=f"tiny:{suite}",
        distribution=distribution,
        userland=Selection(
            name=f"{origin}-{base}-userland",
            suite=base,
            roots=("busybox-static", "dropbear-bin"),
            prefixes=("lib", "zlib1g"),
        ),
        kernel=Selection(
            name=f"{origin}-{suite}-kernel",
            suite=suite,
            roots=(distribution.kernel,),
            prefixes=distribution.kernel_parts,
            leave_out=(distribution.kernel,),
        ),
        archive=archive,
        keyring=keyring,
    )
