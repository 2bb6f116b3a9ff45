"""Coverage of the guests' kernels: counters are set to zero before each test, and fetched after it."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import KVMError
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.sessions import SESSION_MACHINES

if TYPE_CHECKING:
    from pytest_kvm.kernel.coverage.parts import Parts
    from pytest_kvm.machine.vm import VM

# pytest shows no frame of this module in tracebacks: its wrappers are around everybody's tests.
__tracebackhide__ = True


class KernelCoverage:
    """What the tests of this process run of kernels. There with ``--kvm-gcov`` only."""

    def __init__(self, config: pytest.Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._item: pytest.Item | None = None
        # The test's own machines, and those whose counters have been fetched because they were about to go off.
        self._own: list[VM] = []
        self._gone: list[VM] = []
        self._said: list[str] = []

    def begin(self, vm: VM, *, shared: bool) -> None:
        """A machine has been made, for the test that runs, or for the whole session."""
        vm.before_off = partial(self._fetch_before_off, vm)
        if self._reset(vm) and not shared:
            self._own.append(vm)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Know which test it is."""
        self._item, self._own, self._gone = item, [], []
        try:
            return (yield)
        finally:
            self._item = None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Count what the test's body runs, and what its own machines did before it."""
        users = self._config.stash[SESSION_MACHINES].used_by(item)
        shared = [each.vm for each in users if self._reset(each.vm)]
        try:
            return (yield)
        finally:
            for vm in [*self._own, *shared]:
                if vm.running or vm not in self._gone:
                    self._fetch(vm)

    def _fetch_before_off(self, vm: VM) -> None:
        self._gone.append(vm)
        self._fetch(vm)

    def _reset(self, vm: VM) -> bool:
        """Set a machine's counters to zero; return whether they can be fetched later."""
        from pytest_kvm.kernel.coverage.counters import reset

        try:
            if not _why_silent(vm):  # it may be started later
                reset(vm)
        except KVMError as error:
            self._lack(str(error))
            return False
        return True

    def _fetch(self, vm: VM) -> None:
        """Save the counters of a machine, or why there are none."""
        from pytest_kvm.kernel.coverage.counters import fetch
        from pytest_kvm.kernel.coverage.gcov import build_tree

        if vm.started is None:  # the test had no use for it
            return
        try:
            why = _why_silent(vm)
            counters = fetch(vm) if not why else None
        except KVMError as error:
            why, counters = str(error), None
        if why:
            self._lack(why)
        elif counters is None:
            self._lack(f"kernel {vm.kernel.release} is built without CONFIG_GCOV_KERNEL")
        else:
            self._save(counters=counters, tree=str(build_tree(vm.host_kernel()) or ""))

    def _lack(self, reason: str) -> None:
        self._save(reason=reason.partition("\n")[0])

    def _save(self, *, counters: bytes | None = None, tree: str = "", reason: str = "") -> None:
        from pytest_kvm.kernel.coverage.parts import Part

        if self._item is not None:
            self._parts.save(Part(self._item.nodeid, counters, tree, reason))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Make the tracefile, when all workers have done their part."""
        if hasattr(self._config, "workerinput"):
            return
        try:
            self._said = self._parts.merge()
        except OSError as error:
            self._said = [f"coverage cannot be written to {self._parts.tracefile}: {error.strerror}"]
        self._parts.remove()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where it is, or why there is none."""
        for line in self._said:
            terminalreporter.write_line(f"kvm: {line}")


def _why_silent(vm: VM) -> str:
    """Return why a machine cannot be asked for its counters, "" if it can."""
    if vm.broken is not None:
        return f"the guest was lost: {vm.broken}"
    if not vm.running:
        return f"VM {vm.name!r} was off at the end of the test"
    status = vm.qmp.execute("query-status")["status"]
    return f"VM {vm.name!r} was {status} at the end of the test" if status != "running" else ""


COVERAGE = pytest.StashKey[KernelCoverage | None]()


def add_coverage(config: pytest.Config) -> None:
    """Begin to count, if that is asked for. Raises pytest.UsageError where the tracefile cannot be."""
    path = config.stash[OPTIONS].gcov
    config.stash[COVERAGE] = None
    if path is None:
        return
    from pytest_kvm.kernel.coverage.parts import Parts

    parts = Parts(path)
    if not hasattr(config, "workerinput"):
        try:
            parts.begin()
        except OSError as error:
            raise pytest.UsageError(f"--kvm-gcov={path}: {error.strerror}: {error.filename}") from None
    coverage = config.stash[COVERAGE] = KernelCoverage(config, parts)
    config.pluginmanager.register(coverage, "kvm-gcov")
