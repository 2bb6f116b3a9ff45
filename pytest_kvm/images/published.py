"""The names of the images that others publish, and what stands behind each."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_kvm.errors import SpecError
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.source import Source
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.wording import listed

ARCHITECTURES = ("x86_64", "aarch64", "i386")
_HOST = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Published:
    """An image by its full name, such as ``cirros:0.6.3``: where it is, and what it is."""

    name: str
    source: Source
    image: Image


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """A publisher's images, which differ in version and architecture.

    ``versions`` are theirs, the one meant by the bare name first, each with what stands in its addresses for further
    fields. ``addresses`` (the first is asked first) and ``checksums`` are templates with the fields ``version``,
    ``arch`` and those. ``pinned`` are checksums that never change, by version and architecture; with them there are
    those images only. ``arches`` are the architectures in the publisher's words.
    """

    versions: Mapping[str, Mapping[str, str]]
    addresses: tuple[str, ...]
    image: Image
    checksums: str = ""
    arches: Mapping[str, str] = field(default_factory=lambda: {"x86_64": "x86_64", "aarch64": "aarch64"})
    pinned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)

    def has(self, version: str, arch: str) -> bool:
        """Return whether there is such an image."""
        if version not in self.versions or arch not in self.arches:
            return False
        return not self.pinned or arch in self.pinned.get(version, {})

    def published(self, name: str, version: str, arch: str) -> Published:
        """Return the image, under its full name."""
        fields = {"version": version, "arch": self.arches[arch], **self.versions[version]}
        addresses = tuple(address.format(**fields) for address in self.addresses)
        file = addresses[0].rpartition("/")[2]
        if self.pinned:
            source = Source(urls=addresses, checksum=Checksum.parse(self.pinned[version][arch]), filename=file)
        else:
            sums = self.checksums.format(**fields, address=addresses[0])
            source = Source(urls=addresses, checksum_url=sums, filename=file)
        return Published(name, source, self.images.get(version, self.image))


def find_published(text: str, publishers: Mapping[str, Publisher]) -> Published | None:
    """Return the image of a name such as ``cirros``, ``debian:13`` or ``cirros:0.6.3-aarch64``; None for other names.

    Without an architecture it is this host's. Raises SpecError for a version, or an architecture of it, that is not
    known.
    """
    family, colon, version = text.partition(":")
    publisher = publishers.get(family)
    if publisher is None:
        return None
    machine = platform.machine()
    arch, suffix = _HOST.get(machine, machine), ""
    for each in ARCHITECTURES:
        if version.endswith(f"-{each}"):
            arch, suffix, version = each, f"-{each}", version.removesuffix(f"-{each}")
    if not colon or not version:
        version = next(iter(publisher.versions))
    if not publisher.has(version, arch):
        known = [version for version in publisher.versions if publisher.has(version, arch)]
        raise SpecError(
            f"image {text!r}: no version {version!r} for {arch} is known"
            + (f"; there are {listed([f'{family}:{each}{suffix}' for each in known])}" if known else ""),
            keyword="image",
            value=text,
        )
    return publisher.published(f"{family}:{version}{suffix}", version, arch)


def published_names(publishers: Mapping[str, Publisher]) -> list[str]:
    """Return the names of all images for this host's architecture."""
    machine = platform.machine()
    arch = _HOST.get(machine, machine)
    return [
        name
        for family, publisher in publishers.items()
        for name in (family, *(f"{family}:{version}" for version in publisher.versions if publisher.has(version, arch)))
    ]
