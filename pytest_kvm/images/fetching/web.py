"""Fetch files from the web, from one of several addresses."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.mirror import addresses
from pytest_kvm.images.fetching.partial import Partial
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.request import RequestFailed, ask
from pytest_kvm.images.fetching.retry import insist
from pytest_kvm.images.fetching.transfer import Transfer, not_announced
from pytest_kvm.images.progress import Report, say_nothing

NETWORK_HINT = (
    "try again later, check the network (proxies come from HTTPS_PROXY and HTTP_PROXY), name a mirror with"
    " PYTEST_KVM_MIRROR, or give a file with --kvm-image=PATH"
)
_DEFAULT = Patience()


def free_bytes(directory: Path) -> int:
    """Return how many bytes this user can still write there."""
    return shutil.disk_usage(directory).free


def download(
    urls: Sequence[str],
    into: Path,
    *,
    checksum: Checksum | None,
    publisher: str = "publisher",
    limit: int | None = None,
    report: Report = say_nothing,
    show: Callable[[int], None] | None = None,
    room: Callable[[Path], int] = free_bytes,
    patience: Patience = _DEFAULT,
    hint: str = NETWORK_HINT,
) -> str:
    """Fetch a file from the first of several addresses that has it, and return that address.

    The file appears at ``into``, replacing what is there, when it is complete and has the ``checksum``; until then it
    grows in ``into.partial``, which the next download goes on with. At most ``limit`` bytes are taken. ``publisher`` is
    whose word errors quote. ``report`` is told what takes time; ``show`` is told the number of bytes there are, instead
    of a bar; ``room`` tells the free bytes in a directory. PYTEST_KVM_MIRROR is asked first, see `mirror.addresses`.
    One process at a time may fetch the same file, which the caller sees to. Raises ImageUnavailable, with ``hint``
    where there is no better one.
    """
    failures = []
    for url in addresses(urls, verified=checksum is not None):
        try:
            Transfer(url, Partial(into), checksum, publisher, limit, report, show, room, patience).run()
        except RequestFailed as error:
            failures.append(error)
        else:
            return url
    raise _unavailable(failures, hint)


def read(
    url: str, limit: int, *, publisher: str = "publisher", patience: Patience = _DEFAULT, hint: str = NETWORK_HINT
) -> bytes:
    """Return the content at an address, of at most ``limit`` bytes, as the ``publisher`` announces.

    PYTEST_KVM_MIRROR is asked first, see `mirror.addresses`. Raises ImageUnavailable, with ``hint`` where there is no
    better one.
    """
    failures = []
    for place in addresses([url], verified=False):
        try:
            return insist(functools.partial(_read, place, limit, publisher, patience.silence), patience)
        except RequestFailed as error:
            failures.append(error)
    raise _unavailable(failures, hint)


def _read(url: str, limit: int, publisher: str, silence: float) -> bytes:
    data = bytearray()
    with ask(url, headers={}, silence=silence) as answer:
        for chunk in answer.chunks():
            data += chunk
            if len(data) > limit:
                raise not_announced(url, publisher, f"at most {limit} bytes", "more")
    return bytes(data)


def _unavailable(failures: Sequence[RequestFailed], hint: str) -> ImageUnavailable:
    special = next((failure.hint for failure in failures if failure.hint), hint)
    return ImageUnavailable("; ".join(map(str, failures)), hint=special)
