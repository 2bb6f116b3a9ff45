"""What the machines of a failed test leave: kept in its folder, and told in its report."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.plugin.collection import MARKER
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.sessions import SESSION_MACHINES
from pytest_kvm.plugin.values import ARTIFACTS as MODES

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.plugin.factories import Pool
    from pytest_kvm.report.results import Results

# pytest shows no frame of this module in tracebacks: its wrappers are around everybody's tests.
__tracebackhide__ = True

# Of a report's user_properties, which travel with it: the test's folder, and what could not be saved.
PROPERTY = "kvm_artifacts"
TROUBLE = "kvm_artifacts_trouble"
_, ALWAYS, NEVER = MODES
# More of them say nothing more.
_TROUBLES = 5


class Artifacts:
    """The results of the test that runs. One per pytest process, registered as a plugin of its own."""

    def __init__(self, config: pytest.Config) -> None:
        options = config.stash[OPTIONS]
        self._config = config
        self._mode = options.artifacts
        self._directory = options.artifacts_dir
        self._item: pytest.Item | None = None
        # Made when the test turns out to have a machine: sessions without one do without all that.
        self._results: Results | None = None
        self._pools: list[Pool] = []
        # Machines of the test that did not come up, and are still there.
        self.wrecks: list[VM] = []
        # How busy the session's machines had been before the test.
        self._before: dict[VM, int] = {}
        # What stands in the test's reports by now, by the machine.
        self._told: dict[str, str] = {}
        self._troubles: list[str] = []
        self._interrupted = ""

    # The machines

    def follow(self, pool: Pool) -> None:
        """The test that runs has this pool of machines."""
        self._pools.append(pool)

    def leave(self, vm: VM) -> None:
        """A machine has ended, and its logs are still there."""
        if vm in self.wrecks:
            self.wrecks.remove(vm)
        if self._item is None or (vm in self._sessions() and not self._concerns(self._item, vm)):
            return
        try:
            self._now(self._item).leave(vm)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the machine has to go
            self._troubles.append(f"VM {vm.name!r}: {error!r}")

    def folder(self, vm: VM) -> Path | None:
        """Return the folder of a machine of the test that runs, which is made if it is not there.

        None if nothing shall be kept. What else is put into it stays there. Raises OSError.
        """
        return self._now(self._item).folder(vm) if self._item is not None else None

    def _now(self, item: pytest.Item) -> Results:
        if self._results is None:
            from pytest_kvm.report.place import Place
            from pytest_kvm.report.results import Results

            place = Place(self._directory, item.nodeid) if self._mode != NEVER else None
            self._results = Results(place, keep=self._mode == ALWAYS)
        return self._results

    def _sessions(self) -> list[VM]:
        return self._config.stash[SESSION_MACHINES].machines

    def _concerns(self, item: pytest.Item, vm: VM) -> bool:
        """Return whether a session's machine is one of the test's: by its fixtures, or because it has been so far."""
        usual = [shared.vm for shared in self._config.stash[SESSION_MACHINES].used_by(item)]
        return vm in usual or (self._results is not None and self._results.knows(vm))

    def _shared(self, item: pytest.Item) -> list[VM]:
        """Return the session's machines that the test uses; some get them without saying so."""
        return [vm for vm in self._sessions() if self._concerns(item, vm) or vm.activity != self._before.get(vm)]

    # The test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep what there is of a test that is interrupted; forget what nobody needs any more."""
        try:
            result = yield
        except (KeyboardInterrupt, pytest.exit.Exception):
            # Its machines end with the session.
            self._keep(item, running=True)
            self._interrupted = self._place() or ""
            raise
        self._end()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Begin, also when the test is run once more."""
        self._end()
        self._item = item
        item.user_properties[:] = [each for each in item.user_properties if each[0] not in (PROPERTY, TROUBLE)]
        self._before = {vm: vm.activity for vm in self._sessions()}
        if item.get_closest_marker(MARKER) is not None:
            self._clear(item)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what there is when the test fails, and tell it in the report."""
        report = yield
        if report.failed or (self._mode == ALWAYS and call.when == "call"):
            self._keep(item, running=True)
        elif call.when == "teardown" and self._results is not None and self._results.kept:
            self._keep(item, running=False)
        self._tell(item, report)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Remove the directory if there is nothing in it."""
        self._end()
        if self._mode != NEVER and not hasattr(self._config, "workerinput"):
            from pytest_kvm.report.place import remove_empty

            remove_empty(self._directory)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what could not be saved, and what is left of an interrupted test."""
        reports = [each for several in terminalreporter.stats.values() for each in several]
        properties = [each for report in reports for each in getattr(report, "user_properties", ())]
        troubles = list(dict.fromkeys(str(value) for name, value in properties if name == TROUBLE))
        for trouble in troubles[:_TROUBLES]:
            terminalreporter.write_line(f"kvm: not saved: {trouble}", yellow=True)
        if len(troubles) > _TROUBLES:
            terminalreporter.write_line(f"kvm: … and {len(troubles) - _TROUBLES} more", yellow=True)
        if self._interrupted:
            terminalreporter.write_line(f"kvm: what there is of the interrupted test: {self._interrupted}")

    def _clear(self, item: pytest.Item) -> None:
        """Remove what an earlier run of the test left."""
        from pytest_kvm.report.place import Place

        if self._mode == NEVER:
            return
        place = Place(self._directory, item.nodeid)
        try:
            place.clear()
        except OSError as error:
            self._troubles.append(f"{place.path}: {error.strerror}")

    def _keep(self, item: pytest.Item, *, running: bool) -> None:
        shared = self._shared(item)
        own = [*(vm for pool in self._pools for vm in pool.machines), *self.wrecks] if running else []
        if self._results is None and not (own or shared):
            return
        try:
            self._now(item).keep([*own, *shared])
        except Exception as error:  # noqa: BLE001 - the test's own failure must be told
            self._troubles.append(f"{item.nodeid}: {error!r}")

    def _tell(self, item: pytest.Item, report: pytest.TestReport) -> None:
        if report.failed and self._results is not None:
            from pytest_kvm.report.section import section, share

            accounts = list(self._results.accounts())
            for evidence, folder in accounts:
                before = self._told.get(evidence.name, "")
                place = self._shown(folder) if folder is not None else ""
                told = f"{report.longreprtext}\n{before}"
                text = section(evidence, lines=share(len(accounts)), told=told, place=place)
                report.sections.append((f"VM {evidence.name!r} ({report.when})", text))
                self._told[evidence.name] = f"{before}{text}\n"
        for name, value in self._properties():
            if (name, value) not in item.user_properties:
                item.user_properties.append((name, value))
                report.user_properties.append((name, value))
                if name == TROUBLE:
                    report.sections.append((f"kvm: not saved ({report.when})", value))

    def _properties(self) -> list[tuple[str, str]]:
        troubles = [*self._troubles, *(self._results.troubles if self._results is not None else ())]
        found = [(TROUBLE, trouble) for trouble in troubles]
        if self._results is not None and self._results.path is not None:
            found.append((PROPERTY, str(self._results.path)))
        return found

    def _place(self) -> str | None:
        path = self._results.path if self._results is not None else None
        return self._shown(path) if path is not None else None

    def _shown(self, path: Path) -> str:
        """Return a path as it is told: from where pytest was started."""
        here = self._config.invocation_params.dir
        return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)

    def _end(self) -> None:
        results, self._results, self._item = self._results, None, None
        self._pools, self.wrecks, self._told, self._troubles, self._before = [], [], {}, [], {}
        if results is not None:
            results.close()


ARTIFACTS = pytest.StashKey[Artifacts]()


def add_artifacts(config: pytest.Config) -> None:
    """Begin to keep what machines leave."""
    artifacts = config.stash[ARTIFACTS] = Artifacts(config)
    config.pluginmanager.register(artifacts, "kvm-artifacts")


def artifacts_folder(config: pytest.Config, vm: VM) -> Path | None:
    """Return where the artifacts of a machine of the test that runs are, made if it is not there.

    None with ``--kvm-artifacts=never``. Raises OSError.
    """
    return config.stash[ARTIFACTS].folder(vm)
