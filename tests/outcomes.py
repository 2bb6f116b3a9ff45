"""Sessions with real machines, run as a user runs them, and what became of each of their tests."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

_CONFTEST = """
import json
from pathlib import Path

def pytest_configure(config):
    # A worker of xdist passes its reports on.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer())

class Writer:
    def pytest_runtest_logreport(self, report):
        with Path(__file__).with_name("reports.jsonl").open("a") as file:
            words = [report.nodeid.partition("::")[2], report.when, report.outcome, report.longreprtext]
            print(json.dumps([*words, report.sections, hasattr(report, "wasxfail")]), file=file)
"""


@dataclass(frozen=True)
class Told:
    """What pytest said about one phase of a test."""

    when: str
    outcome: str
    text: str
    sections: list[tuple[str, str]]
    xfail: bool


class Outcomes:
    """A finished session. ``tests`` has the phases of each test, by its name."""

    def __init__(self, pytester: pytest.Pytester, result: pytest.RunResult) -> None:
        self.result = result
        self.tests: dict[str, list[Told]] = {}
        for line in (pytester.path / "reports.jsonl").read_text().splitlines():
            name, *words = json.loads(line)
            self.tests.setdefault(name, []).append(Told(*words))

    def outcome(self, name: str) -> str:
        """Return ``passed``, or the phases that did not pass, such as ``call failed``."""
        bad = [f"{told.when} {told.outcome}" for told in self.tests[name] if told.outcome != "passed"]
        return ", ".join(bad) or "passed"

    def text(self, name: str) -> str:
        """Return what pytest said about the phases that did not pass."""
        return "\n".join(told.text for told in self.tests[name] if told.outcome != "passed")


def run_session(pytester: pytest.Pytester, test: str, *options: str, conftest: str = "") -> Outcomes:
    """Run the tests in this text, with real machines."""
    pytester.makeconftest(_CONFTEST + conftest)
    pytester.makepyfile(test_it=test)
    plain = ("-p", "no:cacheprovider", "--kvm-strict", "--strict-markers")
    return Outcomes(pytester, pytester.runpytest_subprocess(*plain, *options, timeout=300))
