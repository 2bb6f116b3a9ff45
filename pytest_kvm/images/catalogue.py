"""Find the image that a name, an address, a path or a description means."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.files import why_unreadable
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.images.builtin.built import is_built
from pytest_kvm.images.builtin.distribution import known_suites, os_release
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.downloads import Downloads
from pytest_kvm.images.fetching.request import shown
from pytest_kvm.images.fetching.source import Source
from pytest_kvm.images.progress import Report, say_nothing
from pytest_kvm.images.published import find_published, published_names
from pytest_kvm.images.publishers import PUBLISHERS
from pytest_kvm.images.trust import check_disk
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.spec.fields import is_path
from pytest_kvm.spec.image import FILES, Image, from_address, is_address
from pytest_kvm.spec.wording import about, field_of

Given = str | os.PathLike[str] | Image


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All images that can be named here, and how they are obtained.

    ``binary`` returns the QEMU whose qemu-img looks into disks. ``described`` are the user's own images, by their
    names; one of them may take the place of one of ours. ``offline`` forbids downloads, ``archive`` is the address of
    the package archive that the built-in guest is made from (None: apt's own), ``keyring`` the file of keys that
    verifies it, ``report`` is told about what takes time.
    """

    binary: Callable[[], QEMUBinary]
    described: Mapping[str, Image] = field(default_factory=dict)
    offline: bool = False
    archive: str | None = None
    keyring: str | None = None
    report: Report = say_nothing

    def names(self) -> list[str]:
        """Return the names that ``image=`` takes, beside addresses and paths."""
        built = ["tiny", *(f"tiny:{suite}" for suite in known_suites(os_release()))]
        return list(dict.fromkeys([*self.described, *built, *published_names(PUBLISHERS)]))

    def find(self, given: Given) -> Image:
        """Return the image, with all of its files here, and looked into.

        Raises SpecError if there is no such name or file, or it cannot be what was meant; ImageUnavailable if the image
        cannot be had here and now.
        """
        if isinstance(given, Image):
            return self._obtained(given)
        text = os.fspath(given)
        if isinstance(given, str) and is_address(text):
            return self._obtained(_from_address(text))
        if not is_path(given) and text in self.described:
            described = self.described[text]
            return self._obtained(described if described.name else replace(described, name=text))
        if not is_path(given):
            named = self._named(text)
            if named is not None:
                return named
        return self._at(Path(text))

    def lasts(self, given: Given) -> bool:
        """Return whether the image stays what it is for a session: it is kept in the cache, by us."""
        if isinstance(given, Image):
            return False
        text = os.fspath(given)
        if is_path(given) or text in self.described:
            return False
        return is_address(text) or text in self.names() or find_published(text, PUBLISHERS) is not None

    def describe(self, name: str) -> Image:
        """Return what is known about the image of a name, address or path; nothing is fetched. Raises SpecError."""
        if is_address(name):
            return _from_address(name)
        if name in self.described:
            return self.described[name]
        published = find_published(name, PUBLISHERS)
        if published is not None:
            return replace(published.image, name=published.name)
        if not is_path(name) and not os.path.exists(name):
            raise self._unknown(name)
        return Image(name)

    def downloads(self) -> Downloads:
        """Return the store of disks that were fetched."""
        return Downloads(cache_dir() / "downloads", offline=self.offline, report=self.report)

    def source(self, given: Given) -> tuple[str, Source] | None:
        """Return the name in the store, and the source, of an image that is fetched; None for all others.

        Raises SpecError.
        """
        if isinstance(given, Image):
            image = given
        elif not isinstance(given, str):
            return None
        elif is_address(given):
            image = _from_address(given)
        elif given in self.described:
            image = self.described[given]
        else:
            published = find_published(given, PUBLISHERS)
            return None if published is None else (published.name, published.source)
        if not is_address(image.disk) or image.checksum is None:
            return None
        address, checksum = str(image.disk), Checksum.parse(image.checksum)
        file = address.partition("?")[0].rpartition("/")[2]
        return f"{file}-{checksum.hex[:12]}", Source(urls=(address,), checksum=checksum, filename=file)

    def _named(self, text: str) -> Image | None:
        """Return one of our own images; None for what may be a file in the working directory. Raises SpecError."""
        if is_built(text):
            if text not in self.names():
                raise self._unknown(text)
            return tiny_image(
                text.partition(":")[2] or None,
                offline=self.offline,
                archive=self.archive,
                keyring=self.keyring,
                report=self.report,
            )
        published = find_published(text, PUBLISHERS)
        if published is not None:
            disk = self.downloads().get(published.name, published.source)
            return self._checked(replace(published.image, disk=disk, name=published.name), alone=True)
        if not os.path.exists(text):
            raise self._unknown(text)
        return None

    def _unknown(self, text: str) -> SpecError:
        names = self.names()
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
        families = dict.fromkeys(name.partition(":")[0] for name in names)
        guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(families)}"
        return SpecError(
            f"image {text!r} is neither a file nor a known name; {guess} ('pytest-kvm images list --all' shows all)",
            keyword="image",
            value=text,
        )

    def _obtained(self, image: Image) -> Image:
        source = self.source(image)
        if source is None:
            return self._checked(image, alone=False)
        label = image.name or shown(str(image.disk))
        return self._checked(replace(image, disk=self.downloads().get(*source), name=label, checksum=None), alone=True)

    def _at(self, path: Path) -> Image:
        return self._checked(Image(path.absolute(), name=str(path), ready="login"), alone=False)

    def _checked(self, image: Image, *, alone: bool) -> Image:
        for name in FILES:
            path = getattr(image, name)
            reason = why_unreadable(path) if path is not None and name != "disk" else None
            if reason is not None:
                raise SpecError(f"image {image.label!r}: {name}={str(path)!r}: {reason}", keyword="image", value=path)
        if image.disk is None:
            return image
        found = check_disk(
            Path(image.disk).absolute(),
            image.format,
            binary=self.binary(),
            remembered=Remembered(cache_dir() / "host"),
            alone=alone,
        )
        return replace(image, disk=Path(image.disk).absolute(), format=found)


def _from_address(text: str) -> Image:
    with about(field_of("vm", "image", text), keyword="image", value=text):
        return from_address(text)
