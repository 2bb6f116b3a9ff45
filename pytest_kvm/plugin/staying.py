"""Staying with a failure: its machines are kept running, stay alive at pdb's prompt, and are saved to be reopened."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import KVMError, MachineError
from pytest_kvm.plugin.artifacts import ARTIFACTS
from pytest_kvm.plugin.debugging import in_several_processes
from pytest_kvm.plugin.options import OPTIONS

if TYPE_CHECKING:
    from pytest_kvm.machine.attaching import Attachable
    from pytest_kvm.machine.machine import Machine
    from pytest_kvm.machine.vm import VM

SECTION = "kvm state"
VMCORE = "vmcore"
_ENTER = "Enter ends them and goes on with the next test, Ctrl-C ends the session: "


def stay(config: pytest.Config) -> None:
    """Stay with failures, if an option says so; raises pytest.UsageError where nobody could press Enter."""
    options, pdb = config.stash[OPTIONS], bool(config.getoption("usepdb", False))
    keep = options.keep and _can_keep(config)
    if keep or pdb or options.save_state or options.vmcore:
        config.stash[STAYING] = Staying(config, keep=keep, pdb=pdb, save=options.save_state, dump=options.vmcore)
        config.pluginmanager.register(config.stash[STAYING], "kvm-staying")


def _can_keep(config: pytest.Config) -> bool:
    """Return whether somebody can press Enter; from the command line, --kvm-keep insists on it."""
    if in_several_processes(config):
        reason = "the tests run in several processes; leave out -n"
    elif not _at_terminal(config):
        reason = "its standard input is no terminal"
    else:
        return True
    if config.getoption("kvm_keep"):
        raise pytest.UsageError(
            f"--kvm-keep waits for somebody to press Enter, and there is nobody: {reason}. "
            "--kvm-save-state keeps machines for later"
        )
    return False


def _at_terminal(config: pytest.Config) -> bool:
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None or not config.pluginmanager.has_plugin("terminal"):
        return False
    capture.suspend_global_capture(in_=True)
    try:
        return os.isatty(0)
    finally:
        # Standard input is only given back together with the others.
        capture.resume_global_capture()
        capture.suspend_global_capture()


class Staying:
    """The plugin that stays with failures: keeps machines running (``keep``, ``pdb``), saves them (``save``).

    ``dump`` writes the memory of those whose guest has panicked.
    """

    def __init__(self, config: pytest.Config, *, keep: bool, pdb: bool, save: bool, dump: bool) -> None:
        self._config = config
        self._keep = keep
        self._pdb = pdb
        self._save = save
        self._dump = dump
        self._item: pytest.Item | None = None
        # Machines that did not come up.
        self._wrecks: list[VM] = []

    @property
    def attachable(self) -> bool:
        """Whether somebody may want to attach to machines."""
        return self._keep or self._pdb

    def take_over(self, machine: Machine) -> None:
        """Take over a machine that did not come up: it ends with the test that asked for it."""
        from pytest_kvm.machine.vm import VM

        if self._item is None or not isinstance(machine, VM):
            machine.close()
        else:
            self._wrecks.append(machine)
            self._config.stash[ARTIFACTS].wrecks.append(machine)

    def _end_wrecks(self) -> None:
        with contextlib.ExitStack() as stack:
            while self._wrecks:
                stack.callback(self._wrecks.pop().close)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Know whose machines those are that do not come up, and end them whatever ends the test."""
        self._item = item
        try:
            return (yield)
        finally:
            self._item = None
            self._end_wrecks()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        """End the machines that did not come up, after the test's other ones."""
        try:
            yield
        finally:
            self._end_wrecks()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Save the machines of a test that has failed, before anything else happens to them."""
        report = yield
        if report.failed and call.when != "teardown":
            lines = [line for vm in self._machines(item) for line in self._secured(item, vm)]
            if lines:
                report.sections.append((SECTION, "\n".join(lines)))
        return report

    def _secured(self, item: pytest.Item, vm: VM) -> Iterator[str]:
        if self._dump:
            yield from _dumped(item, vm)
        if self._save:
            yield from _saved(item, vm)

    @pytest.hookimpl(wrapper=True)
    def pytest_exception_interact(
        self, node: pytest.Item | pytest.Collector, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, object, object]:
        """Say how to attach to the failed test's machines, and wait: with --pdb, its prompt does."""
        machines = [vm for vm in self._machines(node) if vm.lives] if self.attachable else []
        if not machines:
            return (yield)
        with _attachable(machines) as attachable:
            self._say(report, attachable)
            with _unjudged(machines):
                result = yield
                if self._keep and not self._pdb:
                    with contextlib.suppress(EOFError):
                        input(_ENTER)
        return result

    def _machines(self, node: pytest.Item | pytest.Collector) -> list[VM]:
        from pytest_kvm.plugin.sessions import SESSION_MACHINES
        from pytest_kvm.plugin.verdicts import POOL

        if not isinstance(node, pytest.Item):
            return []
        shared = [each.vm for each in self._config.stash[SESSION_MACHINES].used_by(node)]
        own = node.stash[POOL].machines if POOL in node.stash else []
        return [*own, *shared, *self._wrecks]

    def _say(self, report: pytest.CollectReport | pytest.TestReport, attachable: list[Attachable]) -> None:
        """Show the failure, unless pdb does, and the ways to its machines; give standard input back."""
        self._config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
        terminal = self._config.get_terminal_writer()
        terminal.line()
        if not self._pdb:
            terminal.sep("_", report.head_line or report.nodeid)
            report.toterminal(terminal)
            for name, content in report.sections:
                terminal.sep("-", name)
                terminal.line(content)
        terminal.sep(">", "machines that are kept")
        for each in attachable:
            try:
                terminal.line(each.describe())
            except (KVMError, OSError) as error:  # the test's own failure comes first
                terminal.line(f"nobody can attach to VM {each.vm.name!r}: {error}")


@contextlib.contextmanager
def _attachable(machines: list[VM]) -> Iterator[list[Attachable]]:
    from pytest_kvm.machine.attaching import Attachable

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Attachable(vm))) for vm in machines]


@contextlib.contextmanager
def _unjudged(machines: list[VM]) -> Iterator[None]:
    """Let what happens to the machines inside the block be no verdict: somebody plays with them."""
    before = [finding for vm in machines for finding in vm.watcher.findings.all]
    try:
        yield
    finally:
        for vm in machines:
            vm.receive()
            for finding in vm.watcher.findings.all:
                finding.told = finding.told or finding not in before


def _dumped(item: pytest.Item, vm: VM) -> Iterator[str]:
    """Write a machine's memory, if its guest has panicked, and yield what to say about it."""
    try:
        if not vm.lives or vm.qmp.execute("query-status")["status"] != "guest-panicked":
            return
        folder = item.config.stash[ARTIFACTS].folder(vm)
        if folder is not None and not (folder / VMCORE).exists():  # a subtest of it has failed before
            yield f"the memory of VM {vm.name!r} is in {vm.dump(folder / VMCORE)}"
    except (KVMError, OSError) as error:  # the test's own failure comes first
        yield f"the memory of VM {vm.name!r} is not dumped: {error}"


def _saved(item: pytest.Item, vm: VM) -> Iterator[str]:
    """Save a machine, and yield what to say about it."""
    from pytest_kvm.machine.attaching import program
    from pytest_kvm.machine.preserved import FOLDER
    from pytest_kvm.machine.preserving import preserve

    try:
        folder = _folder(item, vm)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # an earlier run's
        remarks = preserve(vm, folder / FOLDER, test=item.nodeid)
    except Exception as error:  # noqa: BLE001  # whatever it is, the test's own failure comes first
        yield f"VM {vm.name!r} could not be saved: {error or type(error).__name__}"
    else:
        yield f"VM {vm.name!r} was saved: {program('pytest-kvm', 'pytest_kvm', 'reopen', str(folder))}"
        yield from (f"  {remark}" for remark in remarks)


def _folder(item: pytest.Item, vm: VM) -> Path:
    folder = item.config.stash[ARTIFACTS].folder(vm)
    if folder is None:
        raise MachineError("with --kvm-artifacts=never there is no place for it")
    return folder


STAYING = pytest.StashKey[Staying]()
