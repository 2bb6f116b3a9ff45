"""What a test says will go wrong: the blocks ``with vm.expect_panic():`` and their like."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, cast

from pytest_kvm.errors import AgentError, DriveFailed, MachineError, NotSeen, QEMUExited, ShellLost, SSHError, Verdict
from pytest_kvm.machine.verdicts.finding import Finding
from pytest_kvm.machine.verdicts.findings import Expectation
from pytest_kvm.machine.verdicts.settling import settle
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

Pattern = str | re.Pattern[str]
_TIMEOUT = Usual(30)
_PANICS = ("panic", "firmware", "emergency shell")
# How those who were using the machine learn that it has gone.
_GONE = (Verdict, DriveFailed, QEMUExited, ShellLost, SSHError, AgentError)


class Expecting:
    """The part of a machine that is told what will go wrong.

    Each block waits at its end, ``timeout`` seconds at most (default: 30, under emulation 60), for what was announced,
    and raises NotSeen when it does not come. Inside, a command that loses its answer because the machine goes away
    raises nothing with ``check=False`` (its ``returncode`` is -1 then); any other error that says that it went away
    ends the block as if it were complete. What the block yields has the ``findings``, each with its ``kind``, ``title``
    and ``text``.
    """

    def expect_splat(
        self, match: Pattern | None = None, *, timeout: float = _TIMEOUT
    ) -> AbstractContextManager[Expectation]:
        """Expect that the kernel complains: a WARNING, an oops, a report of KASAN …

        ``match`` is a pattern that is searched in the report and in its title, such as ``WARNING in foo``. Of reports
        that match, any number may come.
        """
        return self._expect("a splat", lambda finding: not finding.fatal, match, timeout, fatal=False)

    def expect_panic(
        self, match: Pattern | None = None, *, timeout: float = _TIMEOUT
    ) -> AbstractContextManager[Expectation]:
        """Expect that the guest comes to its end: a panic, an emergency shell, firmware that finds nothing to boot.

        ``match`` is searched in what the guest prints about it, and in its title. Splats that lead up to it are part of
        it. After it the machine stays in the state that QEMU gives it (``guest-panicked``): ``vm.qmp`` works.
        """
        return self._expect("a panic", lambda finding: finding.kind in _PANICS, match, timeout, fatal=True)

    def expect_shutdown(self, *, timeout: float = _TIMEOUT) -> AbstractContextManager[Expectation]:
        """Expect that the guest switches itself off."""
        return self._expect("a shutdown", lambda finding: finding.kind == "shutdown", None, timeout, fatal=True)

    def expect_reboot(self, *, timeout: float = _TIMEOUT) -> AbstractContextManager[Expectation]:
        """Expect that the guest reboots by itself. The block does not wait until it is ready again."""
        return self._expect("a reboot", lambda finding: finding.kind == "reboot", None, timeout, fatal=True)

    def expect_watchdog(
        self, action: str | None = None, *, timeout: float = _TIMEOUT
    ) -> AbstractContextManager[Expectation]:
        """Expect that the guest's watchdog fires, with what it does to the machine.

        ``action`` is QEMU's for it, as ``-action watchdog=`` says: ``reset``, ``pause``, ``poweroff`` …
        """
        match = None if action is None else re.compile(rf"action {re.escape(action)}$")
        return self._expect("a watchdog's end", lambda finding: finding.kind == "watchdog", match, timeout, fatal=True)

    def expect_exit(
        self, returncode: int | None = None, *, timeout: float = _TIMEOUT
    ) -> AbstractContextManager[Expectation]:
        """Expect that QEMU ends by itself: it is killed, crashes, or the guest writes to isa-debug-exit.

        ``returncode`` is its exit status, or minus the signal's number.
        """

        def accepts(finding: Finding) -> bool:
            if finding.kind != "exit":
                return False
            return returncode is None or cast(QEMUExited, finding.make()).returncode == returncode

        return self._expect("QEMU's end", accepts, None, timeout, fatal=True)

    def expect_drive_failure(
        self, drive: str | None = None, *, timeout: float = _TIMEOUT
    ) -> AbstractContextManager[Expectation]:
        """Expect that QEMU stops the guest because a drive's file cannot be read or written (``werror=``, ``rerror=``).

        ``drive`` is its id. After it the guest is stopped; ``vm.resume()`` has it try again.
        """

        def accepts(finding: Finding) -> bool:
            if finding.kind != "drive":
                return False
            return drive is None or cast(DriveFailed, finding.make()).drive == drive

        return self._expect("a drive's failure", accepts, None, timeout, fatal=True)

    def _expect(
        self, what: str, accepts: Callable[[Finding], bool], match: Pattern | None, timeout: float, *, fatal: bool
    ) -> AbstractContextManager[Expectation]:
        pattern = re.compile(match, re.MULTILINE) if isinstance(match, str) else match
        return _expecting(cast("VM", self), Expectation(what, accepts, pattern, fatal), timeout)


@contextlib.contextmanager
def _expecting(vm: VM, expectation: Expectation, timeout: float) -> Iterator[Expectation]:
    found = vm.watcher.findings
    before = found.all
    timeout = vm.watch.limit(timeout)
    found.open(expectation)
    try:
        try:
            yield expectation
        except _GONE as error:
            if not _explains(vm, expectation, error, timeout):
                raise
        else:
            _await(vm, expectation, before, timeout)
    finally:
        found.close(expectation)
    if any(finding.kind == "shutdown" for finding in expectation.findings):
        vm.went_off()
    if expectation.fatal:
        for finding in found.all:
            if finding not in before and not finding.fatal:
                finding.expected = True  # it led up to it


def _explains(vm: VM, expectation: Expectation, error: MachineError, timeout: float) -> bool:
    """Return whether the error is how the test learned of what it expects."""
    if isinstance(error, (Verdict, DriveFailed)):
        return any(finding.is_behind(error) for finding in expectation.findings)
    return expectation.fatal and vm.watch.wait_only(lambda: bool(expectation.findings), Deadline(timeout))


def _await(vm: VM, expectation: Expectation, before: list[Finding], timeout: float) -> None:
    """Wait for what is expected. Raises NotSeen, or the machine's failure when it went away in another way."""
    if not expectation.fatal:
        settle(vm)  # several may come; those that are on their way belong to this block
    known = vm.watch.failures if expectation.findings else 0
    if vm.watch.wait_for(lambda: bool(expectation.findings), Deadline(timeout), known=known):
        return
    others = [finding.title or finding.kind for finding in vm.watcher.findings.all if finding not in before]
    wanted = expectation.what + (f" matching {expectation.pattern.pattern!r}" if expectation.pattern else "")
    raise NotSeen(
        f"VM {vm.name!r}: {wanted} was expected, and did not come within {timeout:g} s; "
        f"instead: {', '.join(others) or 'nothing'}. Console is at:\n{vm._console_tail()}"
    )
