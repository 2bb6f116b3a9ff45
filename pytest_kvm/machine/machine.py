"""A machine's life from one start of QEMU to the end of its fixture, and what it leaves behind: nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pytest_kvm.errors import (
    KVMError,
    LaunchError,
    QEMUExited,
    SpecError,
    TeardownError,
)
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.shell.shell import Shell
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.host.budget import Share
from pytest_kvm.host.rundir import RunDir
from pytest_kvm.journal import Journal
from pytest_kvm.machine.board import with_contents
from pytest_kvm.machine.cpus import as_host_error
from pytest_kvm.machine.devices.unflushed import settle
from pytest_kvm.machine.forwards import Forwards
from pytest_kvm.machine.readiness import Ready
from pytest_kvm.machine.run import Run, shown
from pytest_kvm.machine.tpm import with_tpm
from pytest_kvm.machine.verdicts.watcher import Watcher
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.plan import Plan
from pytest_kvm.qemu.process import QEMUProcess, describe_end
from pytest_kvm.qemu.qmp import QMP, Event
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    from pytest_kvm.machine.daemon import Daemon
    from pytest_kvm.machine.snapshots import Snapshot
    from pytest_kvm.machine.templates import OpenTemplate


# Seconds until a machine must be ready, on real hardware. Nobody waits as long for a guest that is dead.
BOOT_TIMEOUT = 60.0
# Channels that do not belong to the guest's shell.
_NO_SHELL = ("console", "firmware", "agent")
# Times as long as usual may everything take in a machine that somebody debugs, who may stop it for a day.
DEBUGGED = 1000.0


class Machine:
    """What is common to all machines, whatever runs in them."""

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
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.internet = spec.internet
        self.accel = plan.accel
        self.user = image.user if image is not None else ""
        self.watch = Watch()
        self.watch.pace = DEBUGGED if plan.halted else pace
        self._plan = plan
        self._binary = binary
        self._image = image
        self._run_dir = folder
        self._folder = folder.path
        self._io = io
        self._timeout = timeout
        self._verbs = threading.RLock()
        self._run: Run | None = None
        # Of the last start.
        self._launched = plan
        self._command: list[str] = []
        self._forwards: Forwards | None = None
        self._ssh: SSH | None = None
        self._agent: Agent | None = None
        self.shell: Shell | None = None
        self.serial: SerialPort | None = None
        # They end with the machine: snapshots of it, and the template that its disks are overlays on.
        self._snapshots: list[Snapshot] = []
        self._template: OpenTemplate | None = None
        # What it takes of the host's budget, given back when it has ended.
        self._share: Share | None = None
        # What ends the machine is asked for: not a failure of QEMU's.
        self._asked_off = False
        self._closed = False
        # Why the kernel's last words may be missing, once that is known.
        self.unmarked = ""
        self.watcher = Watcher(self.name, io=io, watch=self.watch, boots=image is not None or self._ready != "none")
        self._firmware: SerialPort | None = None
        # What was run in the guest, and what was said over QMP.
        self.commands_journal = Journal(folder.path / "commands.jsonl")
        self.qmp_journal = Journal(folder.path / "qmp.jsonl")
        # What serves its shares, and is its TPM, while it runs.
        self.daemons: list[Daemon] = []
        # Told how gdb attaches to it, whenever QEMU has been started.
        self.announce: Callable[[str], None] | None = None
        # Called when it has ended, before its directory is removed.
        self.leave: Callable[[], None] | None = None
        # Called before it is asked to switch off or to reboot.
        self.before_off: Callable[[], None] | None = None
        # Who takes the machine over when it does not come up, to look at it; None: it ends.
        self.heir: Callable[[Machine], None] | None = None
        # Its start failed, and QEMU still runs for whoever looks at it; the test is told that it is off.
        self._stuck = False
        if plan.console is not None:
            self.serial = SerialPort(io=io, watch=self.watch, log_path=folder.path / "console.log")
            self.watcher.listen(self.serial)
        if plan.seabios is not None:
            self._firmware = SerialPort(io=io, watch=self.watch, log_path=folder.path / "firmware.log")
            self.watcher.listen(self._firmware)

    def __repr__(self) -> str:
        return f"<VM {self.name!r}: {'running' if self.running else 'off'}>"

    # State

    @property
    def running(self) -> bool:
        """Whether the machine is on (a paused one is)."""
        return self.lives and not self._stuck

    @property
    def lives(self) -> bool:
        """Whether QEMU runs; it also does after a start that failed, when somebody is to look at it."""
        return self._run is not None and self._run.process.running

    @property
    def broken(self) -> str | None:
        """Why the machine cannot be handed on: QEMU ended by itself, or the guest panicked. None if it can."""
        if self.watch.failed and not self._asked_off:
            try:
                self.watch.check()
            except KVMError as error:
                return str(error)
        return None

    @property
    def activity(self) -> int:
        """A figure that grows with what is run in the guest, and with what goes wrong in it."""
        return self.commands_journal.count + len(self.watcher.findings.all)

    @property
    def qmp(self) -> QMP:
        """The QMP session; raises QEMUExited when the machine is off."""
        if self._run is None:
            raise self._off_error()
        return self._run.qmp

    @property
    def agent(self) -> Agent:
        """The QEMU guest agent; raises SpecError when the image has none, QEMUExited when the machine is off."""
        if self._plan.agent is None:
            raise SpecError(
                f"VM {self.name!r}: image {self._label!r} is not said to run the QEMU guest agent; "
                "declare one that does, with agent=True",
                keyword="image",
            )
        if self._agent is None:
            raise self._off_error()
        return self._agent

    @property
    def command(self) -> list[str]:
        """The command line of the last start, empty before the first."""
        return list(self._command)

    @property
    def pid(self) -> int:
        """QEMU's process id; raises QEMUExited when the machine is off."""
        if self._run is None or not self._run.process.running:
            raise self._off_error()
        return self._run.process.pid

    def _off_error(self) -> QEMUExited:
        return QEMUExited(f"VM {self.name!r} is off; vm.start() switches it on")

    @property
    def _label(self) -> str | None:
        return self._image.label if self._image is not None else None

    def receive(self) -> None:
        """Take in what the guest has printed and is not read yet."""
        self._io.call(self.watcher.receive)

    # Starting

    @property
    def _patience(self) -> float:
        if self._plan.halted:
            return BOOT_TIMEOUT * self.watch.pace
        if self.spec.timeout is not None:
            return self.spec.timeout
        return self._timeout if self._timeout is not None else BOOT_TIMEOUT * self.watch.pace

    @property
    def elastic(self) -> bool:
        """Whether the machine may take longer to come up as long as it gets on: nobody said how long it may."""
        return self.spec.timeout is None and self._timeout is None

    @property
    def _ready(self) -> Ready:
        if self.spec.ready is not None:
            return self.spec.ready
        return self._image.when_ready if self._image is not None else "none"

    def _revive(self) -> None:
        """End what is left of an earlier run: another one begins."""
        self._end_run()
        self.watch.reset()
        self.watcher.revive()
        self.unmarked = ""
        self._asked_off = self._stuck = False

    def _launch(self, deadline: Deadline, plan: Plan | None = None) -> None:
        self._run = None
        self._forwards = None
        self._launched = plan or self._plan
        try:
            with contextlib.ExitStack() as stack:
                run = Run(
                    with_tpm(self, with_contents(self._launched, self._folder), stack),
                    self._binary,
                    folder=self._folder,
                    io=self._io,
                    watch=self.watch,
                    on_event=self._on_event,
                    on_exit=self._on_exit,
                    attach=self._attach,
                    journal=self.qmp_journal,
                    deadline=deadline,
                )
        except LaunchError as error:
            self._command = list(error.command)
            refused = as_host_error(error, self._launched)
            if refused is not None:
                raise refused from error
            raise
        self._run = run
        self._command = run.command
        if self.shell is not None:
            self.shell.use(run.qmp)
        nic = self._plan.nics[0].id if self._plan.nics else None
        self._forwards = Forwards(name=self.name, qmp=run.qmp, nic=nic)

    def _attach(self, connections: Mapping[str, socket.socket]) -> None:
        if self.serial is not None:
            self.serial.attach(connections["console"])
        if self._firmware is not None:
            self._firmware.attach(connections["firmware"])
        if self._plan.agent is not None:
            self._agent = Agent(
                name=self.name,
                connection=connections["agent"],
                io=self._io,
                watch=self.watch,
                asked=self._agent_asked,
                internet=self.internet,
            )
            self._agent.journal = self.commands_journal
        ports = {name: connection for name, connection in connections.items() if name not in _NO_SHELL}
        if ports:
            self.shell = Shell(
                name=self.name,
                folder=self._folder,
                io=self._io,
                watch=self.watch,
                internet=self.internet,
                user=self.user,
            )
            self.shell.attach(ports)

    def _agent_asked(self, mode: str, asked: bool) -> None:
        """The guest's agent is asked to end it."""
        if mode == "reboot":
            self.watcher.reset_asked = asked
        else:
            self.watcher.shutdown_asked = asked

    # What QEMU tells. In the I/O thread.

    def _on_event(self, event: Event) -> None:
        if self._agent is not None:
            self._agent.heed(event)
        self.watcher.heed(event)
        if event["event"] == "RESET":
            if self.shell is not None:
                self.shell.lose("the machine was reset")
            if self._ssh is not None:
                self._ssh.lose("the machine was reset")

    def _on_exit(self, process: QEMUProcess) -> None:
        wanted = self._asked_off or (self.watcher.shutdown_asked and process.returncode == 0)
        self.watcher.exited(lambda: self._exited(process), f"QEMU {describe_end(process.returncode)}", wanted=wanted)
        if self.shell is not None:
            self.shell.lose("the machine went off")
        if self._agent is not None:
            self._agent.end()

    def _exited(self, process: QEMUProcess) -> QEMUExited:
        stderr = process.stderr()
        command = ""
        if process.returncode != 0:
            message = f"VM {self.name!r}: QEMU {describe_end(process.returncode)}"
            command = shown(process.command)
        elif self._asked_off:
            message = f"VM {self.name!r} was switched off"
        elif "terminating on signal" in stderr:
            message = f"VM {self.name!r} was ended by a signal from outside"
        else:
            message = f"VM {self.name!r} powered off by itself"
        evidence = {"QEMU said": stderr.strip(), "Console is at": self._console_tail(), "Command": command}
        message += "".join(f"\n{label}:\n{text}" for label, text in evidence.items() if text)
        return QEMUExited(message, returncode=process.returncode, stderr=stderr)

    def _console_tail(self, lines: int = 20) -> str:
        return self.serial.tail(lines) if self.serial is not None else ""

    # The end

    def abandon(self) -> None:
        """Close a machine that did not come up; if somebody is to look at it, that one does so later."""
        if self.heir is not None and self.lives:
            self.heir(self)
        else:
            self.close()

    def _end_run(self) -> None:
        run, self._run = self._run, None
        self._forwards = None
        if run is not None and run.process.running:
            self._asked_off = True
        with contextlib.ExitStack() as stack:
            for daemon in self.daemons:
                stack.callback(daemon.end)
            self.daemons = []
            if run is not None:
                if not self._closed:
                    stack.callback(settle, self, run)
                stack.callback(run.end)
            if self._ssh is not None:
                stack.callback(self._ssh.close)
            if self.shell is not None:
                stack.callback(self.shell.close)
            if self._agent is not None:
                stack.callback(self._agent.close)
            self._ssh = self.shell = self._agent = None

    def close(self) -> None:
        """End the machine, whatever state it is in: called by the fixture, harmless when called again.

        In this order, each step whatever became of the one before: the shell's and SSH's connections (nobody waits
        for a guest that is about to vanish); QEMU, by QMP ``quit``, then SIGTERM, then SIGKILL, and proved to be gone
        (before its files are removed); the console with its log (so that its last words are in it); what others want of
        it (``leave``); the directory with sockets and private disks; its share of the budget is given back. Raises
        TeardownError when something stays.
        """
        with self._verbs:
            if self._closed:
                return
            self._closed = self._asked_off = True
            try:
                with contextlib.ExitStack() as stack:
                    if self._share is not None:
                        stack.callback(self._share.release)
                    stack.callback(self._run_dir.remove)
                    if self.leave is not None:
                        stack.callback(self.leave)
                    stack.callback(self.commands_journal.close)
                    stack.callback(self.qmp_journal.close)
                    if self._template is not None:
                        stack.callback(self._template.close)
                    for snapshot in self._snapshots:
                        stack.callback(snapshot.close)
                    for port in (self.serial, self._firmware):
                        if port is not None:
                            stack.callback(port.close)
                    stack.callback(self._end_run)
            except OSError as error:
                raise TeardownError(f"VM {self.name!r}: cannot remove {self._folder}: {error}") from error
