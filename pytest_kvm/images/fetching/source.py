"""Where the file of a disk image comes from, and by which checksum it is known."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from pytest_kvm.errors import SpecError
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.mirror import is_web_address


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file on the web.

    ``urls`` are its addresses, in the order in which they are tried; ``filename`` is its name, in the cache and in the
    publisher's list of checksums. ``checksum`` pins the content; without it, the list at ``checksum_url`` is read when
    the file is fetched, by https only, and pins it from then on. Raises SpecError.
    """

    urls: tuple[str, ...]
    filename: str
    checksum: Checksum | None = None
    checksum_url: str | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise SpecError(f"image file {self.filename!r} has no address to be fetched from", keyword="urls")
        for url in self.urls:
            if not is_web_address(url):
                raise SpecError(f"address {url!r} is not http://HOST/… or https://HOST/…", keyword="urls", value=url)
        if not self.filename or "/" in self.filename or "\0" in self.filename or self.filename.startswith("."):
            raise SpecError(
                f"filename {self.filename!r} must be a name, without folders and not hidden",
                keyword="filename",
                value=self.filename,
            )
        listed = self.checksum_url
        if listed is not None and not (is_web_address(listed) and urllib.parse.urlsplit(listed).scheme == "https"):
            raise SpecError(
                f"checksum_url {listed!r} is not https://HOST/…: what verifies a file must not be forged on its way",
                keyword="checksum_url",
                value=listed,
            )
        if self.checksum is None and listed is None:
            raise SpecError(
                f"image file {self.filename!r} has neither checksum nor checksum_url: nothing would verify it",
                keyword="checksum",
            )
