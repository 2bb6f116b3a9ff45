"""How the commands print: tables, sizes, ages, JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from pytest_kvm.visible import visible

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def print_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> None:
    """Print rows below their headers."""
    from tabulate import tabulate

    shown = [[visible(cell) for cell in row] for row in rows]
    print(tabulate(shown, headers=headers, tablefmt="plain", disable_numparse=True))


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def mib(size: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{size / 1024**2:.0f} MiB"


def age(seconds_since_1970: float) -> str:
    """Return how long ago something was, in the largest unit of which there is more than one."""
    seconds = max(0.0, time.time() - seconds_since_1970)
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def date(seconds_since_1970: float) -> str:
    """Return a time to the minute, as it is here."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds_since_1970))
