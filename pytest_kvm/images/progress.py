"""Show how a download advances, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str], None]
"""Takes a line about something that makes the user wait."""


def say_nothing(_line: str) -> None:
    """Be the Report of those who want none."""


@contextmanager
def download_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the number of bytes received so far out of ``total``.

    It draws a bar on standard error if that is a terminal, and does nothing otherwise.
    """
    if not sys.stderr.isatty():
        yield lambda _received: None
        return
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
        monitor_interval = 0  # no thread that outlives the bar

    with Bar(total=total, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:

        def show(received: int) -> None:
            bar.update(max(received - bar.n, 0))

        yield show
