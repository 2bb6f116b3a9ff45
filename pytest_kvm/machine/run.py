"""One run of QEMU: from its command line to its proved end."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import DriveInUse, LaunchError, MachineError, QEMUExited, TeardownError
from pytest_kvm.journal import Journal
from pytest_kvm.machine.devices.layers import Layers
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.plan import GDB, MONITOR, Channel, Plan, PlannedDrive
from pytest_kvm.qemu.process import LOG, QEMUProcess, describe_end
from pytest_kvm.qemu.qmp import QMP, Event
from pytest_kvm.qemu.sockets import Listener
from pytest_kvm.waiting import Deadline, Watch

# A QEMU that is told to quit is gone within milliseconds; the rest is for a host in trouble.
_QUIT_PATIENCE = 3.0
_TERM_PATIENCE = 2.0
# For the events that QEMU sent before it ended; they are in our socket already.
_LAST_WORDS = 0.5
# block/file-posix.c: the image lock, taken on the file or, by an overlay, on what is below it.
LOCK = re.compile(r'Failed to get (?:shared )?"(?P<kind>[^"]+)" lock')


class Run:
    """QEMU, running: its ``process``, its ``command`` line, and the session on its ``qmp`` socket."""

    def __init__(
        self,
        plan: Plan,
        binary: QEMUBinary,
        *,
        folder: Path,
        io: IOThread,
        watch: Watch,
        on_event: Callable[[Event], None],
        on_exit: Callable[[QEMUProcess], None],
        attach: Callable[[Mapping[str, socket.socket]], None],
        journal: Journal,
        deadline: Deadline,
    ) -> None:
        self._name = plan.spec.name
        # What tests have put between the drives and their files, by the drives' ids.
        self.layers: dict[str, Layers] = {}
        self._watch = watch
        self.qmp = QMP(name=self._name, io=io, watch=watch, on_event=on_event, journal=journal)
        with contextlib.ExitStack() as stack:
            listeners = {
                name: stack.enter_context(contextlib.closing(Listener(folder / name))) for name in _names(plan)
            }
            plan = _with_descriptors(plan, listeners)
            connections = {name: listener.connect() for name, listener in listeners.items() if _ours(name)}
            self.command = build(plan, binary)
            try:
                self.process = QEMUProcess(
                    self.command,
                    io=io,
                    watch=watch,
                    stderr_path=folder / LOG,
                    pass_fds=[*(listener.fileno() for listener in listeners.values()), *_inherited(plan)],
                    cwd=folder,
                    before_exit=lambda: self.qmp.said_all(_LAST_WORDS),
                    on_exit=on_exit,
                )
            except OSError as error:
                for connection in connections.values():
                    connection.close()
                raise LaunchError(
                    f"VM {self._name!r}: cannot start {binary.path}: {error.strerror}", command=self.command
                ) from error
        try:
            attach({name: connection for name, connection in connections.items() if name != "qmp"})
            self._greet(connections["qmp"], plan, deadline)
        except BaseException:
            self.end()
            raise

    def _greet(self, connection: socket.socket, plan: Plan, deadline: Deadline) -> None:
        try:
            self.qmp.connect(connection, deadline)
        except TimeoutError:
            raise LaunchError(
                f"VM {self._name!r}: QEMU runs, but did not answer within {deadline.seconds or 0.0:g} s.\n"
                f"QEMU said: {self.process.stderr().strip() or '(nothing)'}\nCommand: {shown(self.command)}",
                stderr=self.process.stderr(),
                command=self.command,
            ) from None
        except QEMUExited:
            self.process.wait(Deadline(_TERM_PATIENCE))
            raise self.launch_error(plan) from None

    def launch_error(self, plan: Plan) -> LaunchError:
        """Return the error for a QEMU that ended before it answered."""
        stderr = self.process.stderr()
        said = stderr.strip() or "(nothing)"
        if LOCK.search(stderr):
            drives = [planned for planned, _ in plan.drives]
            return in_use(self._name, drives, said, self.process.returncode, self.command)
        return LaunchError(
            f"VM {self._name!r}: QEMU {describe_end(self.process.returncode)} before it was up.\n"
            f"QEMU said: {said}\nCommand: {shown(self.command)}",
            returncode=self.process.returncode,
            stderr=stderr,
            command=self.command,
        )

    def end(self) -> None:
        """End QEMU for sure: QMP ``quit``, SIGTERM, SIGKILL. Raises TeardownError if it survives that."""
        if self.process.running:
            # Whatever is wrong with QMP, the process ends below.
            with contextlib.suppress(MachineError, OSError):
                self.qmp.quit(_QUIT_PATIENCE)
            self.process.wait(Deadline(_QUIT_PATIENCE))
        gone = not self.process.running or self.process.end(_TERM_PATIENCE)
        self.qmp.close()
        if not gone:
            raise TeardownError(f"VM {self._name!r}: QEMU (process {self.process.pid}) survived SIGKILL")


def in_use(
    name: str, drives: Sequence[PlannedDrive], said: str, returncode: int | None = None, command: Sequence[str] = ()
) -> DriveInUse:
    """Return the error of a machine that is refused the lock on one of its drives' files."""
    files = ", ".join(str(planned.drive.file) for planned in drives if planned.drive.file)
    return DriveInUse(
        f"VM {name!r}: a drive is open in another machine (one of {files}). A file with "
        "snapshot=False belongs to one machine at a time, and nobody can read it meanwhile; without it every "
        f"machine writes into an overlay of its own.\nQEMU said: {said}",
        returncode=returncode,
        stderr=said,
        command=command,
    )


def _names(plan: Plan) -> list[str]:
    channels = [
        plan.qmp,
        plan.monitor,
        plan.gdb,
        plan.console,
        plan.seabios,
        plan.agent,
        *(channel for _, channel in plan.ports),
    ]
    return [channel.id.removeprefix("shell-") for channel in channels if channel is not None]


def _ours(name: str) -> bool:
    """Return whether we connect before QEMU runs: not to a standard input, nor to what is for somebody else."""
    return name not in (MONITOR, GDB) and not name.endswith(".in")


def _inherited(plan: Plan) -> list[int]:
    return [*plan.inherited, *(plan.ram.descriptors if plan.ram is not None else ())]


def _with_descriptors(plan: Plan, listeners: Mapping[str, Listener]) -> Plan:
    def filled(channel: Channel) -> Channel:
        return replace(channel, fd=listeners[channel.id.removeprefix("shell-")].fileno())

    return replace(
        plan,
        qmp=filled(plan.qmp),
        console=filled(plan.console) if plan.console else None,
        seabios=filled(plan.seabios) if plan.seabios else None,
        ports=[(name, filled(channel)) for name, channel in plan.ports],
        agent=filled(plan.agent) if plan.agent else None,
        monitor=filled(plan.monitor) if plan.monitor else None,
        gdb=filled(plan.gdb) if plan.gdb else None,
    )


def shown(command: list[str]) -> str:
    """Return a command line for people: quoted, one option a line."""
    lines = [shlex.quote(command[0])]
    for word in command[1:]:
        if word.startswith("-"):
            lines.append("  " + shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n".join(lines)
