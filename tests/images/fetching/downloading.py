"""Downloads of the tests' disk, as they should end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.web import NETWORK_HINT, download
from tests.images.fetching.servers import CHECKSUM, DATA

ONCE = Patience(silence=10, pauses=())
TWICE = Patience(silence=10, pauses=(0.0,))
SHORT = Patience(silence=0.2, pauses=())


def works(urls: Sequence[str], into: Path, *, patience: Patience = ONCE) -> str:
    """Download the file, and return where from; there is nothing else afterwards."""
    url = download(urls, into, checksum=CHECKSUM, patience=patience)
    assert into.read_bytes() == DATA
    assert os.listdir(into.parent) == [into.name]
    return url


def fails(urls: Sequence[str], into: Path, *, patience: Patience = ONCE, hint: str = NETWORK_HINT) -> str:
    """Return the error of a download, of which nothing is to be seen afterwards."""
    with pytest.raises(ImageUnavailable) as caught:
        download(urls, into, checksum=CHECKSUM, patience=patience)
    assert not into.exists()
    message, _, way_out = str(caught.value).partition("\n  ")
    assert way_out == hint
    return message
