"""A virtual machine as a test sees it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_kvm.errors import (
    MachineError,
    SpecError,
    WaitTimeout,
)
from pytest_kvm.guest.result import Command
from pytest_kvm.guest.runner import Ended, Runner
from pytest_kvm.guest.ssh.ssh import PORT as SSH_PORT
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.host.rundir import RunDir
from pytest_kvm.kernel.gdb import GDB
from pytest_kvm.kernel.traces.sources import vmlinux_of
from pytest_kvm.kernel.verbs import ForKernels
from pytest_kvm.machine.board import OnBoard
from pytest_kvm.machine.devices.unflushed import freeze, is_unflushed
from pytest_kvm.machine.devices.verbs import WithDevices
from pytest_kvm.machine.evidence import Evidence, evidence_of, take_screen
from pytest_kvm.machine.forwards import Forwards
from pytest_kvm.machine.kernels import running_kernel
from pytest_kvm.machine.machine import Machine
from pytest_kvm.machine.readiness import wait_ready, wait_settled
from pytest_kvm.machine.sharing.shares import Attached, MountedShare, Sharing
from pytest_kvm.machine.snapshots import Snapshot, take
from pytest_kvm.machine.starting import Origin, Started, boot
from pytest_kvm.machine.verdicts.expecting import Expecting
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.plan import GDB as SOCKET
from pytest_kvm.qemu.plan import Plan
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline, Usual, Watch

if TYPE_CHECKING:
    from pytest_kvm.guest.console.console import Console
    from pytest_kvm.guest.shell.popen import GuestProcess


_SHUTDOWN = Usual(60)
# QEMU says that the guest is off a moment before it ends.
_OFF_PATIENCE = 5.0


class VM(Machine, Expecting, WithDevices, ForKernels, OnBoard):
    """A machine, made by the fixtures; it ends with the test (or session) that asked for it.

    ``name`` is its name, ``spec`` what was asked for with the defaults filled in, ``accel`` QEMU's accelerator,
    ``user`` as whom ``run`` runs commands, ``started`` how it came up.
    """

    def __init__(
        self,
        spec: VMSpec,
        plan: Plan,
        *,
        binary: QEMUBinary,
        image: Image | None,
        folder: RunDir,
        io: IOThread,
        timeout: float | None,
        pace: float,
        origin: Origin,
    ) -> None:
        super().__init__(spec, plan, binary=binary, image=image, folder=folder, io=io, timeout=timeout, pace=pace)
        self.journal = self.commands_journal
        self.module_files = {}
        self.started: Started | None = None
        # What its first start begins with; None after that.
        self.origin: Origin | None = origin
        # How it gets folders of the host (None: it gets none), and those that it has.
        self.sharing: Sharing | None = None
        self._attached: Sequence[Attached] = ()
        self._console: Console | None = None

    # Channels

    @property
    def console(self) -> Console:
        """The serial console; raises SpecError when the machine has none."""
        from pytest_kvm.guest.console.console import Console

        if self.serial is None:
            raise SpecError(f"VM {self.name!r} (machine={self.spec.machine!r}) has no console", keyword="machine")
        if self._console is None:
            self._console = Console(name=self.name, port=self.serial, image=self._image, journal=self.journal)
        return self._console

    @property
    def ssh(self) -> SSH:
        """SSH to the guest, connected when first used; raises SpecError when the image has no SSH login."""
        if self._image is None or self._image.ssh_user is None:
            network = "" if self._plan.nics else ", or it cannot be reached: the machine has no network"
            raise SpecError(
                f"VM {self.name!r}: nothing is known about SSH in image {self._label!r}{network}", keyword="image"
            )
        if self._ssh is None:
            self._ssh = SSH(
                name=self.name,
                image=self._image,
                watch=self.watch,
                internet=self.spec.internet,
                address=lambda: self._forwarding().add(SSH_PORT),
            )
            self._ssh.journal = self.journal
        return self._ssh

    def forwarded(self, guest_port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Return the host's address and port that lead to a declared port of the guest.

        Raises SpecError, with those that are, when ``hostfwd`` does not have it.
        """
        return self._forwarding().find(guest_port, protocol)

    def forward(self, guest_port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Forward a port of the running machine, unless it is forwarded already; return host address and port."""
        return self._forwarding().add(guest_port, protocol)

    def _forwarding(self) -> Forwards:
        if self._forwards is None:
            raise self._off_error()
        return self._forwards

    @property
    def shares(self) -> list[MountedShare]:
        """The folders of the host that are mounted in it, in order of declaration, and how each is."""
        return [attached.share for attached in self._attached]

    def _mount_shares(self, deadline: Deadline) -> None:
        """Let it have its shares, when it is ready; raises HostError, MachineError."""
        if self.sharing is not None and self.spec.shares:
            self._attached = self.sharing.attach(self, deadline)

    @property
    def gdb(self) -> GDB:
        """How gdb attaches to the machine; raises SpecError when it was not declared with ``gdb=True``."""
        if self._plan.gdb is None:
            raise SpecError(f"VM {self.name!r} was not declared with gdb=True", keyword="gdb")
        kernel = running_kernel(self)
        vmlinux = vmlinux_of(kernel, self.vmlinux_files, []) if kernel is not None and kernel.release else None
        return GDB(self._folder / SOCKET, vmlinux)

    # Commands

    @property
    def _waits_on(self) -> Watch:
        return self.watch

    @property
    def via(self) -> str:
        """Which way ``run`` takes, and as whom."""
        return self._runner().via

    def _runner(self) -> Runner:
        if self.shell is not None:
            return self.shell
        if self._image is not None and self._image.ssh_user is not None:
            return self.ssh
        if self._plan.agent is not None:
            return self.agent
        raise SpecError(
            f"VM {self.name!r}: image {self._label!r} offers neither our shell nor SSH nor the guest agent; "
            "use vm.console",
            keyword="image",
        )

    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        self._check_on()
        return self._runner()._execute(script, shown, data, deadline)

    def popen(
        self,
        command: Command,
        *,
        stdin: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        text: bool = True,
    ) -> GuestProcess:
        """Start a command in the background and return it, with subprocess.Popen's verbs.

        ``stdin=True`` gives it a ``stdin`` to write to. It ends with the machine. Raises SpecError when the image does
        not have our shell.
        """
        self._check_on()
        if self.shell is None:
            raise SpecError(f"VM {self.name!r}: image {self._label!r} does not offer our shell", keyword="image")
        return self.shell.popen(command, stdin=stdin, env=env, cwd=cwd, text=text, journal=self.journal)

    def evidence(self, *, screen: bool = False) -> Evidence | None:
        """Return what is known about the machine, to explain a failure; None if QEMU was never started for it.

        ``screen`` adds a picture of what its display shows now, if it has one.
        """
        if screen:
            take_screen(self)
        return evidence_of(self)

    def _check_on(self) -> None:
        if self._asked_off:
            raise self._off_error()
        self.watch.check()
        if not self.running:
            raise self._off_error()

    # Life

    def start(self, *, wait: bool = True) -> None:
        """Switch the machine on, with the disks as they were; does nothing when it is on.

        The first start is a boot, or the clone of a machine that was booted before, as ``started`` says; all others are
        boots. Returns when it is ready (``wait=False``: when QEMU runs). Raises LaunchError or BootTimeout; then it is
        off.
        """
        with self._verbs:
            self._check_open()
            if self.running:
                return
            self._attached = ()
            try:
                self.started = self.origin.start(self, wait=wait) if self.origin is not None else boot(self, wait=wait)
            except BaseException as error:
                self._give_up(error)
                raise
            self.origin = None

    def _give_up(self, error: BaseException) -> None:
        """End a machine that did not come up, unless somebody is to look at it."""
        self._asked_off = True
        misbehaved = isinstance(error, MachineError)
        if misbehaved:
            take_screen(self)
        self._stuck = misbehaved and self.heir is not None and self.lives
        if not self._stuck:
            self._end_run()
        self.watcher.findings.tell_all()  # it belongs to the caller

    def _check_open(self) -> None:
        if self._closed:
            raise MachineError(f"VM {self.name!r} has ended with its fixture")

    def snapshot(self) -> Snapshot:
        """Save memory, devices and disks of the running machine, which goes on; for ``restore`` and for further ones.

        What its console shows and commands that are running belong to it; network connections are lost in clones.
        Raises SpecError for what cannot be part of a snapshot, MachineError when QEMU or the disk refuses.
        """
        with self._verbs:
            taken = take(self)
            self._snapshots.append(taken)
            return taken

    def restore(self, snapshot: Snapshot) -> None:
        """Put the machine back to where it was, on or off as it is now; ``vm`` and its channels stay usable.

        The time of day and random numbers are new, as in every clone. Raises SpecError for a snapshot of a machine that
        was declared otherwise, MachineError when it does not succeed; then the machine is off.
        """
        with self._verbs:
            self._check_open()
            if not snapshot.fits(self.spec):
                raise SpecError(
                    f"VM {self.name!r}: the snapshot is of VM {snapshot.spec.name!r}, which was declared otherwise"
                )
            if self.shell is not None:
                self.shell.forget("the machine was put back to a snapshot")
            self._revive()
            if self._console is not None:
                self._console.forget()
            if self.serial is not None:
                self.serial.forget()
            try:
                self.started = snapshot.start(self, replay=False)
            except BaseException as error:
                self._give_up(error)
                raise
            self.origin = None

    def shutdown(self, *, timeout: float = _SHUTDOWN) -> None:
        """Ask the guest to power off, and wait until it has; does nothing when the machine is off.

        The guest is asked through its shell, or with the ACPI power button. ``timeout`` is in seconds. Raises
        WaitTimeout, with the machine still on.
        """
        with self._verbs:
            if not self.running:
                return
            if self.before_off is not None:
                self.before_off()
            self.watcher.shutdown_asked = True
            if self.shell is not None and self.shell.ready:
                self.shell.start("/sbin/poweroff", stdin=False)
            else:
                self.qmp.execute("system_powerdown")
            self.wait_for_shutdown(timeout=timeout)

    def wait_for_shutdown(self, *, timeout: float = _SHUTDOWN) -> None:
        """Wait until the guest has powered off by itself; ``timeout`` is in seconds.

        Who waits for it wants it: it is no verdict then, also if it has come already. Raises WaitTimeout, GuestPanic
        at once when the guest panics instead, and QEMUExited when QEMU crashes.
        """
        run = self._run
        if run is None:
            return
        self._asked_off = False  # until it is known to have gone well
        self.watcher.accept_shutdown()
        timeout = self.watch.limit(timeout)
        if not self.watch.wait_for(lambda: not run.process.running, Deadline(timeout)):
            self.watcher.shutdown_asked = False
            raise WaitTimeout(
                f"VM {self.name!r} did not power off within {timeout:g} s. Console is at:\n{self._console_tail()}",
                timeout=timeout,
            )
        if run.process.returncode != 0:
            raise self._exited(run.process)
        self.went_off()

    def went_off(self) -> None:
        """The guest has switched itself off, as was wanted: QEMU ends in this moment (or stays, with -no-shutdown)."""
        if self.watch.wait_only(lambda: not self.running, Deadline(_OFF_PATIENCE)):
            self._asked_off = True
            self._end_run()

    def power_cut(self) -> None:
        """Switch the machine off without a word to the guest; its disks stay as they are.

        Those with a volatile cache (``vm.disk(id).lose_unflushed()``) lose what the guest has not flushed.
        """
        with self._verbs:
            self._asked_off = True
            if self._run is not None and is_unflushed(self._run):
                freeze(self)
                self._run.process.signal(signal.SIGKILL)  # one that ends by itself flushes
            self._end_run()

    def kill(self) -> None:
        """Kill QEMU with SIGKILL."""
        with self._verbs:
            self._asked_off = True
            if self._run is not None:
                self._run.process.signal(signal.SIGKILL)
            self._end_run()

    def reboot(self, *, wait: bool = True) -> None:
        """Let the guest reboot in good order; returns when it is ready again (``wait=False``: when it was reset).

        The guest is asked through its shell, or with Ctrl-Alt-Delete.
        """
        with self._verbs:
            if self.before_off is not None:
                self.before_off()
            if self.shell is not None and self.shell.ready:
                shell = self.shell
                self._reset(lambda: shell.start("/sbin/reboot", stdin=False), wait, asked=True)
            else:
                keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
                self._reset(lambda: self.qmp.execute("send-key", {"keys": keys}), wait, asked=True)

    def reset(self, *, wait: bool = True) -> None:
        """Press the reset button; returns when the machine is ready again (``wait=False``: at once)."""
        with self._verbs:
            self._reset(lambda: self.qmp.execute("system_reset"), wait)

    def _reset(self, trigger: Callable[[], object], wait: bool, *, asked: bool = False) -> None:
        deadline = Deadline(self._patience)
        position = self.serial.received if self.serial is not None else 0
        self.watcher.reset_asked = asked  # by the guest, because we asked it to
        try:
            with self.qmp.expect_event("RESET", timeout=self._patience):
                trigger()
        finally:
            self.watcher.reset_asked = False
        if not self.qmp.execute("query-status")["running"]:
            self.qmp.execute("cont")  # it was paused, or had panicked
        if wait:
            left = wait_ready(self, self._ready, deadline, since=position)
            wait_settled(self, left)
            for attached in self._attached:
                attached.mount_again(self, left)

    def pause(self) -> None:
        """Stop the virtual CPUs."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let the virtual CPUs go on."""
        self.qmp.execute("cont")
