"""One table for all figures of a run, as text and as JSON (``--bench-json=FILE``)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
from tabulate import tabulate


class Table:
    """Figures of one run, each a median, and as a multiple of others of the same run."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, object]] = {}
        self._medians: dict[str, float] = {}

    def add(self, name: str, values: Sequence[float], *against: str, unit: str = "ms") -> None:
        """Add what was measured (seconds, if ``unit`` is ms), with its ratio to other rows."""
        scale = 1000 if unit == "ms" else 1
        median = self._medians[name] = statistics.median(values)
        self.rows[name] = {
            "median": round(median * scale, 2),
            "least": round(min(values) * scale, 2),
            "most": round(max(values) * scale, 2),
            "unit": unit,
            "n": len(values),
            "ratios": {other: round(median / self._medians[other], 3) for other in against},
        }

    def __str__(self) -> str:
        """Return the table for people."""
        lines = [
            [name, *(row[key] for key in ("median", "least", "most", "unit", "n")), _ratios(row["ratios"])]
            for name, row in self.rows.items()
        ]
        return tabulate(lines, headers=["", "median", "least", "most", "", "n", "against others of this run"])


def _ratios(ratios: object) -> str:
    found = ratios if isinstance(ratios, dict) else {}
    shown = [f"{ratio:.2f} x" if ratio >= 1 else f"1/{1 / ratio:.1f}" for ratio in found.values()]
    return "; ".join(f"{text} of {other!r}" for text, other in zip(shown, found, strict=True))


TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench-json", metavar="FILE", help="write the figures there, too")
    parser.addoption(
        "--bench-image", metavar="FILE", help="a disk image that shows a login prompt, to be measured, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


@pytest.fixture
def table(pytestconfig: pytest.Config) -> Table:
    """The run's table."""
    return pytestconfig.stash[TABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if table.rows:
        terminalreporter.section("figures")
        terminalreporter.write_line(str(table))
    target = config.getoption("--bench-json")
    if target:
        Path(target).write_text(f"{json.dumps(table.rows, indent=1)}\n")
