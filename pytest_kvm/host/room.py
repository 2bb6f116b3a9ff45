"""Is there room for what we write?"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from pytest_kvm.errors import HostError
from pytest_kvm.host.cache import CACHE_VARIABLE, cache_dir
from pytest_kvm.host.rundir import run_base

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def needing_room(subject: str) -> Iterator[None]:
    """Turn a disk that is full inside the block into a HostError about the ``subject``; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
        raise HostError(
            f"{subject}: {error.strerror}{where}",
            hint=f"make room in TMPDIR ({run_base()}) and {CACHE_VARIABLE} ({cache_dir()}), or set them elsewhere",
        ) from error
