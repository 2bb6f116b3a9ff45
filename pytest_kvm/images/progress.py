"""Show how a download advances: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str], None]
"""Takes a line about something that makes the user wait."""

_INTERVAL = 30.0  # seconds between two lines, at least


def say_nothing(_line: str) -> None:
    """Be the Report of those who want none."""


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB"


@contextmanager
def download_bar(
    total: int | None,
    *,
    start: int = 0,
    report: Report = say_nothing,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the number of bytes there are so far, out of ``total`` (None: nobody knows).

    ``start`` are there already. It draws a bar on standard error if that is a terminal; otherwise ``report`` is told
    how far it is, every 30 seconds at most, by ``clock``.
    """
    if not sys.stderr.isatty():
        yield _teller(total, report, clock)
        return
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
        monitor_interval = 0  # no thread that outlives the bar

    with Bar(total=total, initial=start, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:

        def show(received: int) -> None:
            bar.update(max(received - bar.n, 0))

        yield show


def _teller(total: int | None, report: Report, clock: Callable[[], float]) -> Callable[[int], None]:
    told = clock()

    def show(received: int) -> None:
        nonlocal told
        if clock() - told >= _INTERVAL:
            told = clock()
            report(f"downloaded {megabytes(received)}{f' of {megabytes(total)}' if total is not None else ''}")

    return show
