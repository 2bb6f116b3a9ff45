"""Ask a web server again, after failures that may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.request import RequestFailed
from pytest_kvm.images.progress import Report, say_nothing

T = TypeVar("T")

# An attempt that brought so many bytes was worth it: the pauses begin anew.
_WORTHWHILE = 4 << 20


def insist(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    report: Report = say_nothing,
    size: Callable[[], int] = lambda: 0,
) -> T:
    """Return what an attempt returns, which is repeated as long as there is patience.

    ``report`` is told of each pause; ``size`` tells how many bytes the attempts have brought. Raises the last
    RequestFailed.
    """
    pauses = list(patience.pauses)
    attempts = 0
    best = size()
    while True:
        attempts += 1
        try:
            return attempt()
        except RequestFailed as error:
            if size() - best >= _WORTHWHILE:
                pauses = list(patience.pauses)
                best = size()
            if not error.transient or not pauses:
                error.attempts = attempts
                raise
            failure = str(error)
        pause = pauses.pop(0)
        report(f"{failure}; asking again in {pause:g} s")
        time.sleep(pause)
