"""Which addresses are asked for a file: a mirror's first, if the user has one."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence

from pytest_kvm.errors import SpecError

MIRROR_VARIABLE = "PYTEST_KVM_MIRROR"


def addresses(urls: Sequence[str], *, verified: bool) -> list[str]:
    """Return the addresses at which to look for what is at any of ``urls``, in their order.

    With ``PYTEST_KVM_MIRROR=https://mirror/dir`` what is at ``https://HOST/PATH`` is sought at
    ``https://mirror/dir/HOST/PATH`` first (``wget --mirror`` and a caching proxy lay it out like this), and then at its
    own place. ``verified``: the content is compared with a checksum; otherwise a mirror with http is not believed in
    place of an address with https. Raises SpecError if the variable is no http(s) address.
    """
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    if not mirror:
        return list(urls)
    if not is_web_address(mirror):
        raise SpecError(
            f"{MIRROR_VARIABLE}={mirror!r} is not an http or https address, such as https://HOST/images", value=mirror
        )
    secure = urllib.parse.urlsplit(mirror).scheme == "https"
    mirrored = []
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if verified or secure or parts.scheme != "https":
            place = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
            mirrored.append(f"{mirror.rstrip('/')}/{place}{f'?{parts.query}' if parts.query else ''}")
    return [*mirrored, *urls]


def is_web_address(url: str) -> bool:
    """Return whether it is an http or https address, with a host."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # brackets that are none of an IPv6 address
        return False
