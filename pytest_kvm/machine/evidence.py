"""What is known about a machine, for whoever has to explain a failure."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError, QMPError, SpecError
from pytest_kvm.journal import Journal, Record
from pytest_kvm.machine.disks import format_of, write_protected
from pytest_kvm.machine.starting import Started
from pytest_kvm.machine.verdicts.finding import Finding
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import SEED_DISK, DriveFile, Plan, PlannedDrive
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.spec.size import parse_size
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.visible import visible

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

CONSOLE, FIRMWARE, QEMU = "console.log", "firmware.log", "qemu.log"
# PNG came with QEMU 7.1, and may be left out when it is built.
SCREENS = {"screen.png": {"format": "png"}, "screen.ppm": {}}
# Seconds for QEMU to write what the display shows.
_SCREEN_PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A machine as it was at one moment, on or off.

    ``command`` is the command line of its last start, of which ``plan`` is the input, ``started`` how it came up (None:
    it did not). ``files`` are those that it may have written, by the names that they shall have, each in parts one
    behind the other. ``console`` is the end of what the guest printed, as it came, which the log may not have;
    ``commands`` the last that were run in it, ``findings`` what went wrong in it. ``troubles`` say what could not be
    recorded.
    """

    name: str
    spec: VMSpec
    plan: Plan
    binary: QEMUBinary
    command: Sequence[str]
    started: Started | None
    files: Mapping[str, Sequence[Path]]
    console: str
    all_logged: bool
    commands: Sequence[Record]
    findings: Sequence[Finding]
    troubles: Sequence[str]

    def tail(self, lines: int) -> list[str]:
        """Return the last lines that the guest printed, for a terminal."""
        return [visible(line).rstrip() for line in self.console.splitlines()][-lines:] if lines else []

    def originals(self) -> dict[str, DriveFile]:
        """Return what the machine's drives began with, by their ids: files that are there still, and empty disks."""
        found = {}
        for planned, _ in self.plan.drives:
            file = original(planned)
            if file is not None:
                found[planned.id] = file
        return found


def evidence_of(vm: VM) -> Evidence | None:
    """Return what is known about a machine; None if QEMU was never started for it."""
    if not vm.command:
        return None
    folder, serial = vm._folder, vm.serial
    # QEMU's, the guest's, and those of the daemons beside it.
    names = (CONSOLE, FIRMWARE, QEMU, *sorted(log.name for log in folder.glob("*.log")), *SCREENS)
    files: dict[str, Sequence[Path]] = {name: [folder / name] for name in names}
    journals: Sequence[Journal] = (vm.qmp_journal, vm.commands_journal)
    files |= {journal.path.name: [journal.older, journal.path] for journal in journals}
    return Evidence(
        name=vm.name,
        spec=vm.spec,
        # Some drives are plugged in when it runs.
        plan=replace(vm._launched, drives=vm._plan.drives or vm._launched.drives),
        binary=vm._binary,
        command=vm.command,
        started=vm.started,
        files=files,
        console=serial.shown() if serial is not None else "",
        all_logged=serial is None or serial.all_logged,
        commands=vm.commands_journal.last(),
        findings=vm.watcher.findings.all,
        troubles=[journal.trouble for journal in journals if journal.trouble],
    )


def take_screen(vm: VM) -> None:
    """Write what the machine's display shows into its folder, if it has one and QEMU is there to be asked.

    Where that cannot be done there is no picture: why not is in the journal of QMP.
    """
    run = vm._run
    if run is None or not run.process.running:
        return
    with contextlib.suppress(MachineError, TimeoutError):  # it has ended, or does not answer
        vm._io.run(asyncio.wait_for(_take_screen(run.qmp, vm._folder), _SCREEN_PATIENCE))


async def _take_screen(qmp: QMP, folder: Path) -> None:
    # Each console that could be shown is an object there (QEMU's ui/console.c).
    backends = await qmp.execute_async("qom-list", {"path": "/backend"})
    if not any(each["name"].startswith("console[") for each in backends):
        return
    for name, how in SCREENS.items():
        try:
            await qmp.execute_async("screendump", {"filename": str(folder / name), **how})
        except QMPError:
            continue  # not in this format
        return


def original(planned: PlannedDrive) -> DriveFile | None:
    """Return what a drive begins with: its file, or an empty disk; None for a seed, and for a file that is gone."""
    drive = planned.drive
    if drive.size is not None:
        return DriveFile(Path(), "raw", size=parse_size(drive.size, "B"))
    if drive.file is None or planned.id == SEED_DISK:
        return None
    path = Path(os.path.abspath(drive.file))
    try:
        return DriveFile(path, format_of(drive), read_only=write_protected(drive))
    except SpecError:  # it is gone
        return None
