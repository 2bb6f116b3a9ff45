"""A program beside QEMU that a machine needs while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.verdicts.finding import Finding
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.process import QEMUProcess, describe_end
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    from pytest_kvm.machine.machine import Machine

# Seconds for a daemon that nobody is connected to any more, and until it is killed then.
_PATIENCE = 1.0


class Daemon:
    """A running daemon, ``name``; ``serving`` says that a guest needs it. ``lost`` is called when it ends all the same.

    It inherits the ``descriptors``, and ends with QEMU.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        descriptors: Sequence[int],
        *,
        io: IOThread,
        watch: Watch,
        log: Path,
        lost: Callable[[Daemon], None],
    ) -> None:
        self.name = name
        self.serving = False
        self._lost = lost
        self.process = QEMUProcess(
            command,
            io=io,
            watch=watch,
            stderr_path=log,
            pass_fds=descriptors,
            cwd=log.parent,
            on_exit=self._ended,
        )

    def _ended(self, _: QEMUProcess) -> None:
        if self.serving:
            self._lost(self)

    @property
    def said(self) -> str:
        """What it wrote."""
        return self.process.stderr().strip()

    def end(self) -> None:
        """End it; by itself it does so when QEMU has ended."""
        self.serving = False
        if not self.process.wait(Deadline(_PATIENCE)):
            self.process.end(_PATIENCE)


def report_lost(machine: Machine, daemon: Daemon, served: str) -> None:
    """Let a machine fail whose daemon has ended: whoever waits for the guest need not."""
    if machine._asked_off or not machine.lives:
        return

    def make() -> MachineError:
        return MachineError(
            f"VM {machine.name!r}: {daemon.name}, which served {served}, {describe_end(daemon.process.returncode)}. "
            f"It said: {daemon.said or '(nothing)'}"
        )

    machine.watcher.findings.add(Finding(kind=daemon.name, title=f"{daemon.name} ended", make=make))
