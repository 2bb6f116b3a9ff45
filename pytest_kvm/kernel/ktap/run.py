"""Run a program in the guest that speaks KTAP, and take in its cases as they end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.errors import CasesFailed, CommandTimeout, MachineError
from pytest_kvm.guest.result import Command, script_of, shorten
from pytest_kvm.kernel import guest
from pytest_kvm.kernel.ktap.case import Case, KTAPResult, Observer, Outcome
from pytest_kvm.kernel.ktap.parser import Parser
from pytest_kvm.waiting import Deadline, Usual, Watch

if TYPE_CHECKING:
    from pytest_kvm.guest.shell.popen import GuestProcess
    from pytest_kvm.guest.shell.shell import Shell

# kselftest's own limit is 45 s for each program of a collection.
DEFAULT_TIMEOUT = Usual(600)
# A line that is longer comes in pieces.
_LONGEST_LINE = 1 << 16
# kselftest's status for "all skipped" (tools/testing/selftests/kselftest.h).
_SKIP = 4
_SHOWN = 10


class Guest(guest.Guest, Protocol):
    """What a program is run in: a machine."""

    watch: Watch
    shell: Shell | None
    observer: Observer | None

    @property
    def via(self) -> str:
        """The way and the user, for messages."""

    @property
    def expects_loss(self) -> bool:
        """Whether a test expects the guest to go away under its commands."""

    def popen(self, command: Command) -> GuestProcess:
        """Start a command."""


class Run:
    """One run: ``told`` are the failing cases that whoever observes has taken over.

    ``named`` says what a case is called, that has the program's name. ``planned`` says whether a plan is missed.
    """

    def __init__(
        self, vm: Guest, *, observed: bool, named: Callable[[Case], str] = lambda case: case.name, planned: bool = True
    ) -> None:
        self.vm = vm
        self.cases: list[Case] = []
        self.text: list[str] = []
        self.told = 0
        self._observed = observed
        self._named = named
        self.parser = Parser(self._ended, planned=planned)

    def _ended(self, case: Case) -> None:
        case = replace(case, name=self._named(case))
        self.cases.append(case)
        if self._observed and self.vm.observer is not None and self.vm.observer(case):
            self.told += not case.outcome.good

    def take(self, line: str) -> None:
        """Take a line of what the program says."""
        self.text.append(line)
        self.parser.feed(line)

    def result(self, returncode: int | None) -> KTAPResult:
        """Return what has come of it."""
        problems = self.parser.problems
        good = all(case.outcome.good for case in self.cases)
        skipped = all(case.outcome is Outcome.SKIPPED for case in self.cases)
        if good and not problems and returncode not in (0, None) and not (returncode == _SKIP and skipped):
            problems = [*problems, f"the program ended with status {returncode}, although no case failed"]
        return KTAPResult(cases=self.cases, problems=problems, returncode=returncode, text="".join(self.text))


def run_ktap(
    vm: Guest,
    command: Command,
    *,
    check: bool,
    timeout: float | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
) -> KTAPResult:
    """Do what ``VM.run_ktap`` says."""
    run = Run(vm, observed=check)
    result = carry_out(run, script_of(command, env=env, cwd=cwd), vm.watch.limit(timeout), check=check)
    if check:
        judge(vm, script_of(command), result, told=run.told)
    return result


def carry_out(run: Run, script: str, timeout: float | None, *, check: bool) -> KTAPResult:
    """Run a script in the guest and return its cases, some of them lost with the guest where a test expects that."""
    vm, script = run.vm, f"exec 2>&1; {script}"
    try:
        status = _streamed(run, script, timeout) if vm.shell is not None else _at_once(run, script, timeout)
    except MachineError as error:
        run.parser.finish(lost=str(error).partition("\n")[0])
        if check or not vm.expects_loss:
            raise
        return run.result(None)
    return run.result(status)


def judge(vm: Guest, command: str, result: KTAPResult, *, told: int) -> None:
    """Raise CasesFailed for what nobody has been told yet: ``told`` failing cases have been."""
    if result.problems or len(result.failed) > told:
        raise _failure(vm, command, result, told=told)


def joined(results: Sequence[KTAPResult]) -> KTAPResult:
    """Return several runs as one; its status is the first that is not 0."""
    codes = [result.returncode for result in results]
    return KTAPResult(
        cases=[case for result in results for case in result.cases],
        problems=[problem for result in results for problem in result.problems],
        returncode=None if None in codes else next((code for code in codes if code), 0),
        text="".join(result.text for result in results),
    )


def _streamed(run: Run, script: str, timeout: float | None) -> int | None:
    """Read while the program runs; return its status, None when it had to be ended."""
    lines: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    deadline = Deadline(timeout)
    with run.vm.popen(script) as process:
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        while True:
            try:
                line = lines.get(timeout=deadline.remaining())
            except queue.Empty:
                _too_late(run, timeout)
                return None
            if isinstance(line, BaseException):
                raise line
            if line is None:
                break
            run.take(line)
        status = process.wait(deadline.remaining())
    run.parser.finish()
    return status


def _read(process: GuestProcess, lines: queue.SimpleQueue[str | BaseException | None]) -> None:
    try:
        while line := process.stdout.readline(_LONGEST_LINE):
            lines.put(line)
        lines.put(None)
    except BaseException as error:  # noqa: BLE001 - it is raised where the lines are taken
        lines.put(error)


def _at_once(run: Run, script: str, timeout: float | None) -> int | None:
    """Read when the program has ended, where the guest has no way to read while it runs."""
    try:
        done = run.vm.run(script, check=False, timeout=timeout)
    except CommandTimeout as error:
        for line in str(error.stdout).splitlines(keepends=True):
            run.take(line)
        _too_late(run, timeout)
        return None
    for line in done.stdout.splitlines(keepends=True):
        run.take(line)
    run.parser.finish()
    return done.returncode


def _too_late(run: Run, timeout: float | None) -> None:
    run.parser.finish(lost=f"the program did not end within {timeout or 0.0:g} s", late=True)


def _failure(vm: Guest, command: str, result: KTAPResult, *, told: int) -> CasesFailed:
    """Return an error with what nobody has been told yet."""
    lines = [f"VM {vm.name!r}: {result} ({vm.via}): {shorten(command)}", *result.problems]
    if len(result.failed) > told:
        for case in result.failed[:_SHOWN]:
            lines.append(f"{case.name}: {case.outcome.value}{f' ({case.reason})' if case.reason else ''}")
            lines += [f"  {line}" for line in case.log.splitlines()[-_SHOWN:]]
        if len(result.failed) > _SHOWN:
            lines.append(f"and {len(result.failed) - _SHOWN} more")
    return CasesFailed("\n".join(lines), failed=[case.name for case in result.failed], problems=result.problems)
