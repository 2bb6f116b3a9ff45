"""The verbs of a machine that are for kernel people."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import SpecError
from pytest_kvm.guest.result import Check, Command, CompletedCommand
from pytest_kvm.guest.runner import DEFAULT_TIMEOUT, Runner
from pytest_kvm.images.kernels.source import Kernel
from pytest_kvm.kernel.clocksource import ClockSource
from pytest_kvm.kernel.cpu import GuestCPU, read_cpu
from pytest_kvm.kernel.dump import dump
from pytest_kvm.kernel.guest import GuestKernel
from pytest_kvm.kernel.kselftest.run import TEST_TIMEOUT, run_kselftest
from pytest_kvm.kernel.ktap.case import KTAPResult, Observer
from pytest_kvm.kernel.ktap.run import DEFAULT_TIMEOUT as KTAP_TIMEOUT
from pytest_kvm.kernel.ktap.run import run_ktap
from pytest_kvm.kernel.kunit.run import run_kunit
from pytest_kvm.kernel.local import bring
from pytest_kvm.kernel.log import Message, newer, parse_log
from pytest_kvm.kernel.tracing import Trace, traced
from pytest_kvm.waiting import Usual, Watch

if TYPE_CHECKING:
    from pytest_kvm.guest.console.serial import SerialPort
    from pytest_kvm.guest.shell.popen import GuestProcess
    from pytest_kvm.guest.shell.shell import Shell
    from pytest_kvm.qemu.qmp import QMP

_DUMP = Usual(300)


class ForKernels(Runner):
    """A part of a machine."""

    name: str
    watch: Watch
    shell: Shell | None
    serial: SerialPort | None

    # What is known on the host about its kernel.
    host_kernel: Callable[[], Kernel | None] = staticmethod(lambda: None)
    _kernel: GuestKernel | None = None
    # The files of the host that modules were loaded from, by the modules' names.
    module_files: dict[str, Path]
    # Files with debug information that the user names, for whatever kernel.
    vmlinux_files: Sequence[Path] = ()
    # Who is told of the cases of run_ktap.
    observer: Observer | None = None

    @property
    def qmp(self) -> QMP:
        """The QMP session."""
        raise NotImplementedError

    def popen(self, command: Command, *, text: bool = True) -> GuestProcess:
        """Start a command in the background."""
        raise NotImplementedError

    def run_ktap(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = KTAP_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> KTAPResult:
        """Run a program in the guest whose output is KTAP, or TAP 13 or 14, and return its cases.

        Each case becomes a subtest of the test (with pytest 9, or the plugin pytest-subtests), with its duration and
        what was said during it. stdout and stderr are read as one, and while the program runs where the guest has our
        shell. ``timeout`` is in seconds (None: no limit; by default 600, under emulation longer); ``env`` and ``cwd``
        are as for ``run``. ``check=False`` only returns the result.

        Raises CasesFailed when the output does not agree with its plan, or is none, and for failing cases that are no
        subtests; another MachineError when the guest is lost: then the case that ran has crashed, and those that its
        plan announced after it have not run.
        """
        return run_ktap(self, command, check=check, timeout=timeout, env=env, cwd=cwd)

    def kselftest(
        self,
        *tests: str,
        path: str | os.PathLike[str] | None = None,
        check: bool = True,
        timeout: float | None = TEST_TIMEOUT,
    ) -> KTAPResult:
        """Run kernel selftests, ``"net"`` for a collection, ``"net:gro.sh"`` for one test, and return their cases.

        Each test is a case, or what is in it, if it speaks KTAP itself: ``net:gro.sh``, ``timers:posix_timers/1``. All
        else is as for ``run_ktap``. The tests are those of ``path``, a folder of the host that
        ``make -C tools/testing/selftests install`` has made (relative paths start at the working directory); without
        it those that are installed in the kernel's build tree, or in the guest, in /usr/lib/kselftest,
        /opt/kselftest and the like. Collections of the host are copied to the guest once, with the shared libraries
        that it lacks, and bash where scripts want it.

        ``timeout`` is what each test may take, in seconds (None: no limit); by default what its collection's settings
        say, else 45, under emulation longer. Raises SpecError for a collection or a test that is not there, and
        MachineError when the guest lacks what the runner needs.
        """
        folder = Path(path) if path is not None else None
        return run_kselftest(self, tests, self.host_kernel(), path=folder, check=check, timeout=timeout)

    def kunit(
        self,
        module: str | None = None,
        *,
        filter: str | None = None,
        check: bool = True,
        timeout: float | None = KTAP_TIMEOUT,
        **parameters: object,
    ) -> KTAPResult:
        """Load a module with tests of KUnit, unload it again, and return its cases, ``suite/case``.

        ``module`` and ``parameters`` are as for ``modprobe``; one that is loaded is unloaded first. Its cases are told
        as those of ``run_ktap`` are: by what the kernel says, while they run, so that a case that the kernel crashes in
        is known. Without a module, the cases are those of all suites that have run since boot, from debugfs
        (CONFIG_KUNIT_DEBUGFS). ``filter`` is KUnit's own, ``"suite*.case*"``, for kernels that take one while they run;
        at boot it is ``append="kunit.filter_glob=…"``. ``timeout`` is what loading may take, in seconds (None: no
        limit; by default 600, under emulation longer).

        Raises MachineError when the kernel has no KUnit, or the module cannot be loaded or unloaded.
        """
        return run_kunit(self, self.kernel, module, parameters, filter_=filter, check=check, timeout=timeout)

    @property
    def kernel(self) -> GuestKernel:
        """The guest's kernel: ``release``, ``version``, ``config``, ``taint``."""
        if self._kernel is None:
            self._kernel = GuestKernel(self, self.host_kernel(), self.module_files)
        return self._kernel

    @property
    def cpu(self) -> GuestCPU:
        """The processors that the guest's kernel uses now: ``model``, ``flags``, ``count``, ``sockets`` …"""
        return read_cpu(self)

    @property
    def clocksource(self) -> ClockSource:
        """The clock that the guest's kernel counts by: ``current``, ``available``, ``set(name)``."""
        return ClockSource(self)

    def modprobe(self, module: str, **parameters: object) -> None:
        """Load a module, with all that it needs; does nothing when it is loaded.

        ``module`` is a name, looked for in the guest and then beside the kernel on the host (its build tree, or what
        was installed of it), or the path of a ``.ko`` file on the host. ``parameters`` are the module's. Raises
        MachineError with the guest's words when it cannot be loaded, SpecError for a file that is no module.
        """
        self.kernel.load(module, parameters)

    def rmmod(self, module: str) -> None:
        """Unload a module; raises MachineError with the guest's words when it cannot be unloaded."""
        self.kernel.unload(module)

    def dmesg(self) -> list[Message]:
        """Return what the kernel has in its log, oldest first: ``level``, ``time``, ``text`` of each message."""
        return parse_log(self.run("dmesg -r").stdout)

    def sysrq(self, key: str) -> list[Message]:
        """Give the kernel a command (``t``: its tasks, ``w``: blocked ones, ``l``: its CPUs …), return what it says.

        The keys are in the kernel's Documentation/admin-guide/sysrq.rst. What ends the guest (``c``, ``b``, ``o``) is a
        verdict, unless the test expects it. Raises SpecError for what is no key.
        """
        if len(key) != 1 or not key.isalnum():
            raise SpecError(f"vm.sysrq({key!r}): expected one letter or digit", value=key)
        before = self.dmesg()
        self.run(f"echo {key} >/proc/sysrq-trigger")
        return newer(self.dmesg(), before)

    def trace_events(self, *events: str) -> AbstractContextManager[Trace]:
        """Trace events of the kernel during a block, ``with vm.trace_events("sched:sched_switch", "block:*") as t:``.

        Behind it, ``t.events`` has them. Raises SpecError for what is no event's name, MachineError for one that
        the kernel does not have.
        """
        return traced(self, events)

    def dump(self, path: str | os.PathLike[str], *, format: str = "elf", timeout: float | None = _DUMP) -> Path:
        """Write the guest's memory to a file on the host, also after a panic; return its absolute path.

        ``format`` is QEMU's: ``elf``, or compressed ``kdump-zlib``, ``kdump-lzo``, ``kdump-snappy`` as QEMU was built;
        ``crash`` reads all of them. ``devices=["vmcoreinfo"]`` has the kernel tell where everything is, without which
        drgn cannot read it. The machine stands still meanwhile. ``timeout`` is in seconds (None: no limit). Raises
        MachineError when it cannot be written; then there is no file.
        """
        return dump(self, Path(path), format_=format, timeout=timeout)

    def bring(self, path: str | os.PathLike[str]) -> list[str]:
        """Copy a program of the host into the guest, with the shared libraries that it needs.

        Returns the words to run it: ``vm.run([*vm.bring("./probe"), "-v"])`` does, and ``vm.run_ktap`` takes them as
        well. Of a folder, all that is in it is copied, and the one word is its path in the guest. Raises SpecError for
        what cannot be copied.
        """
        return bring(self, Path(path))

    def run_local(
        self,
        path: str | os.PathLike[str],
        *arguments: str,
        check: Check = True,
        timeout: float | None = DEFAULT_TIMEOUT,
        env: Mapping[str, str] | None = None,
    ) -> CompletedCommand[str]:
        """Run a program of the host in the guest, and return its status and output.

        The program is copied there with the shared libraries that it needs. Of a folder, all that is in it is copied,
        and the first of the arguments is run in it: ``vm.run_local("selftests", "./run.sh", "-v")``. All else is as for
        ``run``.
        """
        words = self.bring(path)
        if Path(path).is_dir():
            if not arguments:
                raise SpecError(f"vm.run_local({str(path)!r}): say what to run in this folder", value=path)
            return self.run([*arguments], cwd=words[0], check=check, timeout=timeout, env=env)
        return self.run([*words, *arguments], check=check, timeout=timeout, env=env)
