"""Load a module of KUnit tests and take in its cases while they run; or read the results of those that ran at boot."""

from __future__ import annotations

import contextlib
import queue
import re
import shlex
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.errors import CommandTimeout, MachineError
from pytest_kvm.images.builtin.modules import module_name
from pytest_kvm.kernel.debugfs import DEBUGFS, mounted
from pytest_kvm.kernel.guest import GuestKernel
from pytest_kvm.kernel.ktap import run as ktap
from pytest_kvm.kernel.ktap.case import Case, KTAPResult, Outcome
from pytest_kvm.kernel.kunit.says import Records, Said, Suites, behind, of_console, of_log
from pytest_kvm.kernel.log import parse_log

if TYPE_CHECKING:
    from pytest_kvm.guest.console.serial import SerialPort
    from pytest_kvm.guest.shell.popen import GuestProcess

_FILTER = "/sys/module/kunit/parameters/filter_glob"
# cat ends when messages are overwritten before it reads them; what it reads again then is known.
_FOLLOW = "test -r /dev/kmsg || exit; while :; do cat /dev/kmsg 2>/dev/null; sleep 0.1; done"
# The console shall have all that the kernel says: it is what is left of it when it dies.
_LOUD = "set -- $(cat /proc/sys/kernel/printk) && echo 8 >/proc/sys/kernel/printk && echo $1"
# KUnit's remark on a case that runs: "# example_test: initializing".
_REMARK = re.compile(r"^\s+# (\w+): ", re.MULTILINE)
_NEXT = "pytest-kvm: the next suite"
_LAST_NUMBER = re.compile(r"(^|/)\d+$")


class Guest(ktap.Guest, Protocol):
    """What tests are run in: a machine."""

    serial: SerialPort | None


def run_kunit(
    vm: Guest,
    kernel: GuestKernel,
    module: str | None,
    parameters: Mapping[str, object],
    *,
    filter_: str | None,
    check: bool,
    timeout: float | None,
) -> KTAPResult:
    """Do what ``VM.kunit`` says."""
    _require(vm, kernel)
    if module is None:
        result, told = _of_boot(vm, kernel, observed=check)
        shown = "KUnit, at boot"
    else:
        name = module_name(PurePath(module).name)
        _clear(vm, kernel, name)
        run = ktap.Run(vm, observed=check, named=named, planned=False)
        with _filtered(vm, kernel, filter_):
            result = _Loading(vm, kernel, run).load(module, parameters, timeout=vm.watch.limit(timeout), check=check)
        told = run.told
        shown = f"KUnit, {name}"
        if result.returncode == 0:
            kernel.unload(name)
        elif vm.watch.failed:
            return result
        if not result.cases:
            why = "no test that the filter matches, or none at all" if filter_ else "no test of KUnit in it"
            result = replace(result, problems=[f"{name} says nothing: there is {why}, or it is off (kunit.enable=1)"])
    if check:
        ktap.judge(vm, shown, result, told=told)
    return result


def named(case: Case) -> str:
    """Return a case's name; one that has only a number is the one that the kernel has said something about."""
    if case.outcome in (Outcome.CRASHED, Outcome.TIMEOUT) and (remarks := _REMARK.findall(case.log)):
        return _LAST_NUMBER.sub(rf"\g<1>{remarks[-1]}", case.name)
    return case.name


def _require(vm: Guest, kernel: GuestKernel) -> None:
    """Raise MachineError when the kernel has no KUnit."""
    if vm.run("test -d /sys/module/kunit", check=False).returncode == 0:
        return
    try:
        there = "CONFIG_KUNIT" in kernel.config
    except MachineError:  # nobody has its configuration
        there = kernel.has_module("kunit")
    if not there:
        raise MachineError(
            f"VM {vm.name!r}: kernel {kernel.release} has no KUnit: CONFIG_KUNIT is not set"
            ' (vm_requires(config="CONFIG_KUNIT") skips a test then)'
        )


def _clear(vm: Guest, kernel: GuestKernel, name: str) -> None:
    """Unload a module that is loaded: its tests run when it is loaded. Raises MachineError for one that is built in."""
    said = vm.run(
        f"test ! -d /sys/module/{name} || if test -e /sys/module/{name}/initstate; then echo loaded; else echo in; fi",
        check=False,
    )
    if said.stdout.strip() == "in":
        raise MachineError(
            f"VM {vm.name!r}: module {name!r} is built into kernel {kernel.release}: vm.kunit() has the results of boot"
        )
    if said.stdout.strip() == "loaded":
        kernel.unload(name)


@contextlib.contextmanager
def _filtered(vm: Guest, kernel: GuestKernel, pattern: str | None) -> Iterator[None]:
    """Let KUnit run only what matches a pattern. Raises MachineError where it takes one at boot only."""
    if pattern is None:
        yield
        return
    if vm.run("test -d /sys/module/kunit", check=False).returncode:
        kernel.load("kunit", {})
    if vm.run(f"printf %s {shlex.quote(pattern)} >{_FILTER}", check=False).returncode:
        raise MachineError(
            f"VM {vm.name!r}: kernel {kernel.release} takes a filter for KUnit only at boot:"
            f" vm(append={f'kunit.filter_glob={pattern}'!r})"
        )
    yield
    vm.run(f"printf '*' >{_FILTER}", check=False)


class _Loading:
    """One module that is loaded, and what the kernel says meanwhile."""

    def __init__(self, vm: Guest, kernel: GuestKernel, run: ktap.Run) -> None:
        self._vm = vm
        self._kernel = kernel
        self._run = run
        self._suites = Suites()
        run.take(f"{Suites.begin}\n")
        self._last: Said | None = None
        self._began = False

    def load(self, module: str, parameters: Mapping[str, object], *, timeout: float | None, check: bool) -> KTAPResult:
        """Return the cases; the status is None when they did not get to their end."""
        vm, run = self._vm, self._run
        console = _Console(vm.serial)
        level = vm.run(_LOUD, check=False).stdout.strip()
        before = self._log()
        self._last = before[-1] if before else None
        try:
            try:
                self._stream(module, parameters, timeout)
            finally:
                if level.isdecimal() and not vm.watch.failed:
                    vm.run(f"echo {level} >/proc/sys/kernel/printk", check=False)
            self._take(behind(self._log(), self._last))
        except CommandTimeout:
            self._take(behind(self._log(), self._last))
            run.parser.finish(lost=f"the tests did not end within {timeout or 0.0:g} s", late=True)
            return run.result(None)
        except MachineError as error:
            if not vm.watch.failed:  # it cannot be loaded
                raise
            self._take(behind(of_console(console.since()), self._last))
            run.parser.finish(lost=str(error).partition("\n")[0])
            if check or not vm.expects_loss:
                raise
            return run.result(None)
        run.parser.finish()
        return run.result(0)

    def _stream(self, module: str, parameters: Mapping[str, object], timeout: float | None) -> None:
        """Load it, and take what the kernel says while that lasts, where the guest has a way to read it."""
        if self._vm.shell is None:
            self._kernel.load(module, parameters, timeout=timeout)
            return
        news: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        loading = threading.Thread(target=self._load, args=(module, parameters, timeout, news), daemon=True)
        records = Records()
        with self._vm.popen(_FOLLOW) as process:
            threading.Thread(target=_read, args=(process, news), daemon=True).start()
            loading.start()
            while True:
                record = news.get()
                if isinstance(record, BaseException):
                    raise record
                if record is None:
                    break
                self._take([said for said in records.take(record) if self._is_new(said)])
        loading.join()
        if records.lost:
            self._run.parser.problems.append(f"{records.lost} messages of the kernel were lost: its log is too small")

    def _load(
        self,
        module: str,
        parameters: Mapping[str, object],
        timeout: float | None,
        news: queue.SimpleQueue[str | BaseException | None],
    ) -> None:
        try:
            self._kernel.load(module, parameters, timeout=timeout)
            news.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the news are taken
            news.put(error)

    def _is_new(self, said: Said) -> bool:
        """Return whether a line is none of those that were there before; they come first."""
        if not self._began:
            self._began = self._last is None or said[0] > self._last[0]
        return self._began

    def _take(self, lines: Iterable[Said]) -> None:
        for said in lines:
            self._last = said
            self._run.take(f"{self._suites(said[1])}\n")

    def _log(self) -> list[Said]:
        return of_log(parse_log(self._vm.run("dmesg -r").stdout))


class _Console:
    """What comes on a console from now on, in its log."""

    def __init__(self, serial: SerialPort | None) -> None:
        self._path = serial.log_path if serial is not None else None
        self._begin = self._path.stat().st_size if self._path is not None else 0

    def since(self) -> str:
        """Return what has come."""
        if self._path is None:
            return ""
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="backslashreplace")


def _read(process: GuestProcess, news: queue.SimpleQueue[str | BaseException | None]) -> None:
    """Pass on lines; whether the guest is lost tells who loads the module."""
    with contextlib.suppress(MachineError, OSError, ValueError):
        while line := process.stdout.readline():
            news.put(line)


def _of_boot(vm: Guest, kernel: GuestKernel, *, observed: bool) -> tuple[KTAPResult, int]:
    """Return the results of all suites that have run by now, and how many failing cases somebody has been told of."""
    done = vm.run(
        f"{mounted('kunit')}; cd {DEBUGFS}/kunit &&"
        f" for suite in */results; do test -e $suite && echo {_NEXT} && cat $suite; done",
        check=False,
    )
    texts = done.stdout.split(f"{_NEXT}\n")[1:]
    if not texts:
        raise MachineError(
            f"VM {vm.name!r}: kernel {kernel.release} has no results of KUnit: no suite is built into it, or it has no"
            " CONFIG_KUNIT_DEBUGFS; vm.kunit('MODULE') loads one"
        )
    results = []
    told = 0
    for text in texts:
        run = ktap.Run(vm, observed=observed, named=named, planned=False)
        suites = Suites()
        for line in [Suites.begin, *map(suites, text.splitlines())]:
            run.take(f"{line}\n")
        run.parser.finish()
        results.append(run.result(0))
        told += run.told
    return ktap.joined(results), told
