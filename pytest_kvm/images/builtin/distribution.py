"""Which distribution's packages the built-in guest is made from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_kvm.errors import ImageUnavailable


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A family of package archives.

    ``origin`` is what its Release files say; ``keyring`` verifies them and comes in ``keyring_package``.
    ``suites`` are those with a kernel for the guest, the first is where the rest of the guest comes from.
    ``releases`` are other names under which a host's own configuration may list the archive. The kernel is
    what ``kernel`` depends on, as far as names begin with one of ``kernel_parts``.
    """

    origin: str
    keyring: str
    keyring_package: str
    suites: tuple[str, ...]
    releases: tuple[str, ...] = ()
    components: tuple[str, ...]
    kernel: str
    kernel_parts: tuple[str, ...] = ("linux-image-", "linux-modules-", "linux-binary-", "linux-base-")
    architecture: str = "amd64"

    @property
    def default_suite(self) -> str:
        """Where everything but a chosen kernel comes from."""
        return self.suites[0]


def debian() -> Distribution:
    """Return Debian's description.

    Its default is trixie: Linux 6.12 is kept up until 2028, and has vmgenid, virtio-fs and virtio-pci built in.
    """
    return Distribution(
        origin="Debian",
        keyring="/usr/share/keyrings/debian-archive-keyring.gpg",
        keyring_package="debian-archive-keyring",
        suites=("trixie", "bookworm", "trixie-backports", "sid"),
        releases=("oldoldstable", "oldstable", "stable", "testing", "unstable", "bullseye", "forky"),
        components=("main",),
        kernel="linux-image-amd64",
    )


def ubuntu(release: str) -> Distribution:
    """Return the description of one Ubuntu release; busybox-static and dropbear-bin are in universe."""
    return Distribution(
        origin="Ubuntu",
        keyring="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        keyring_package="ubuntu-keyring",
        suites=(release,),
        components=("main", "universe"),
        kernel="linux-image-generic",
    )


def os_release() -> Mapping[str, str]:
    """Return what this host says about itself in os-release(5), empty if it says nothing."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def distribution_for(suite: str | None, *, release: Mapping[str, str], archive: str | None) -> tuple[Distribution, str]:
    """Return the distribution and the suite that ``tiny`` (None) or ``tiny:SUITE`` means on a host.

    ``release`` is the host's os-release, ``archive`` the address of an archive that was given (then Debian's
    suites can be had anywhere). Raises ImageUnavailable if the host has another distribution's packages only.
    """
    codename = release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME", "")
    like = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if "ubuntu" in like and codename:
        own = ubuntu(codename)
        if suite in {None, codename}:
            return own, codename
        if archive is None:
            raise ImageUnavailable(
                f"image 'tiny:{suite}' is made from Debian's packages, but this host's are Ubuntu's",
                hint="use 'tiny', or name a Debian archive with --kvm-archive and keys with --kvm-keyring",
            )
    described = debian()
    return described, suite or described.default_suite


def known_suites(release: Mapping[str, str]) -> list[str]:
    """Return the suites that may follow ``tiny:`` on a host with this os-release."""
    codename = release.get("UBUNTU_CODENAME", "")
    return [*debian().suites, *([codename] if codename else [])]
