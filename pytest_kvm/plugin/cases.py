"""The cases of a test program in the guest as subtests of the test that runs it.

pytest 9 has subtests, and the plugin pytest-subtests before it; without either, ``run_ktap`` raises what has failed.
Each case is a ``<testcase>`` of its own in JUnit's XML.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_kvm.visible import visible

if TYPE_CHECKING:
    from pytest_kvm.kernel.ktap.case import Case

# The name of the case that a report is about; it travels with the report between processes.
MARK = "kvm_case"
_SECTION = "guest"
_PROXY = "kvm-junitxml"


class Cases:
    """Tells pytest of cases, in the test that runs at the moment."""

    def __init__(self) -> None:
        self._item: pytest.Item | None = None
        self._case: Case | None = None

    @contextlib.contextmanager
    def of(self, item: pytest.Item) -> Iterator[None]:
        """Let cases be subtests of a test, whose body runs in the block."""
        self._item = item
        try:
            yield
        finally:
            self._item = None

    def __call__(self, case: Case) -> bool:
        """Report a case as a subtest; return False where there are none."""
        __tracebackhide__ = True
        if self._item is None:
            return False
        try:
            subtests = self._item._request.getfixturevalue("subtests")  # type: ignore[attr-defined]
        except pytest.FixtureLookupError:
            return False
        self._case = case
        try:
            with subtests.test(msg=visible(case.name)):
                _end(case)
        finally:
            self._case = None
        return True

    def fill(self, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        """Let a report be about the case: its time, what it said, and why it failed."""
        case = self._case
        if case is None or call.when != "call":
            return
        setattr(report, MARK, visible(case.name))
        if case.seconds is not None:
            report.duration = case.seconds
            report.start = report.stop - case.seconds
        if report.failed:
            why = f" ({case.reason})" if case.reason else ""
            report.longrepr = visible(f"{case.name}: {case.outcome.value}{why}\n{case.log}".rstrip())
        elif report.skipped and isinstance(report.longrepr, tuple) and self._item is not None:
            path, line, _ = self._item.location
            report.longrepr = (path, (line or 0) + 1, f"Skipped: {visible(case.reason)}")
        if case.log and not report.failed:
            report.sections.append((_SECTION, visible(case.log)))


def _end(case: Case) -> None:
    """End a subtest as the case has ended."""
    from pytest_kvm.kernel.ktap.case import Outcome

    if case.outcome is Outcome.SKIPPED:
        pytest.skip(case.reason or "no reason given")
    if case.outcome is Outcome.XFAILED:
        pytest.xfail(case.reason)
    if not case.outcome.good:
        pytest.fail(case.name, pytrace=False)


class CaseXML:
    """Stands before pytest's writer of JUnit's XML, which would put all subtests of a test into one ``<testcase>``."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        for name in dir(writer):
            if name.startswith("pytest_") and name != "pytest_runtest_logreport":
                setattr(self, name, getattr(writer, name))

    # When the terminal has seen it: only then has a test failed because a subtest has.
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a report; a case's under a name of its own."""
        name = getattr(report, MARK, None)
        if name is not None:
            report = copy.copy(report)
            report.nodeid = f"{report.nodeid}::{name.replace('::', ':')}"
        self.writer.pytest_runtest_logreport(report)


def split_xml(config: pytest.Config) -> None:
    """Let JUnit's XML have a ``<testcase>`` for each case, if it is written, until the session is over."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "LogXML":
            config.pluginmanager.unregister(plugin)
            proxy = CaseXML(plugin)
            config.pluginmanager.register(proxy, _PROXY)
            return


def join_xml(config: pytest.Config) -> None:
    """Put pytest's writer back, which pytest is about to take away."""
    proxy = config.pluginmanager.unregister(name=_PROXY) if config.pluginmanager.has_plugin(_PROXY) else None
    if isinstance(proxy, CaseXML):
        config.pluginmanager.register(proxy.writer)


CASES = pytest.StashKey[Cases]()
