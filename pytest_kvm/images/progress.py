"""Show how a download, or qemu-img, advances: a bar on a terminal; elsewhere a download has a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
    with _bar(total=total, initial=start, unit="B", unit_scale=True) as bar:

        def show(received: int) -> None:
            bar.update(max(received - bar.n, 0))

        yield show


@contextmanager
def fraction_bar(what: str) -> Iterator[Callable[[float], None]]:
    """Give a function that takes how much is done of ``what``, from 0 to 1.

    It draws a bar on standard error if that is a terminal, and does nothing otherwise.
    """
    if not sys.stderr.isatty():
        yield lambda _fraction: None
        return
    with _bar(total=1.0, desc=what, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}") as bar:

        def show(fraction: float) -> None:
            bar.update(fraction - bar.n)

        yield show


def _bar(**settings: Any) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
        monitor_interval = 0  # no thread that outlives the bar

    return Bar(file=sys.stderr, leave=False, **settings)


def _teller(total: int | None, report: Report, clock: Callable[[], float]) -> Callable[[int], None]:
    told = clock()

    def show(received: int) -> None:
        nonlocal told
        if clock() - told >= _INTERVAL:
            told = clock()
            report(f"downloaded {megabytes(received)}{f' of {megabytes(total)}' if total is not None else ''}")

    return show
