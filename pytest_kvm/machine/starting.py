"""How a machine comes up: by a boot, or as the clone of a machine that was booted before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.errors import BootTimeout, MachineError, QEMUExited, QMPError, WaitTimeout
from pytest_kvm.files import opened
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.machine import late
from pytest_kvm.machine.disks import prepare
from pytest_kvm.machine.firmware import with_variables
from pytest_kvm.machine.planning import shell_ports
from pytest_kvm.machine.readiness import wait_ready, wait_settled
from pytest_kvm.machine.repair import needs_repair, repair
from pytest_kvm.machine.sharing.requirements import wants_shared_memory
from pytest_kvm.machine.state import DEVICES, LOG, TRANSCRIPT, Guest, State
from pytest_kvm.machine.tpm import forget
from pytest_kvm.qemu.migration import load
from pytest_kvm.qemu.plan import DriveFile, Plan, PlannedDrive, Ram
from pytest_kvm.qemu.ram import RamFiles
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM


@dataclass(frozen=True)
class Started:
    """How the machine came up: ``kind`` is ``boot`` or ``clone``, ``seconds`` from the start until it was ready.

    ``reason`` says why a machine that might have been a clone was booted.
    """

    kind: str
    seconds: float
    reason: str = ""


class Refused(MachineError):
    """QEMU did not take the state of a saved machine."""


class Origin(Protocol):
    """What a machine's first start begins with."""

    def start(self, vm: VM, *, wait: bool) -> Started:
        """Start the machine; when it raises, the machine is ended by the caller."""
        ...


@dataclass(frozen=True)
class Boot:
    """Boot, for a reason (empty: it was asked for), with these drives."""

    drives: Sequence[PlannedDrive]
    reason: str = ""

    def start(self, vm: VM, *, wait: bool) -> Started:
        """Boot the machine with fresh disks."""
        drives = prepare([replace(planned, port="") for planned in self.drives], vm._folder, vm._binary)
        vm._plan = replace(vm._plan, drives=drives, firmware=with_variables(vm._plan.firmware, vm._folder))
        if wants_shared_memory(vm.spec):
            vm._plan = replace(vm._plan, ram=Ram(shared=True))
        return boot(vm, wait=wait, reason=self.reason)


def boot(vm: VM, *, wait: bool, reason: str = "") -> Started:
    """Boot the machine with the disks that it has."""
    began = Deadline(vm._patience)
    vm._revive()
    position = vm.serial.received if vm.serial is not None else 0
    vm._launch(began)
    if vm._plan.halted and wait:
        began = _let_go(vm)
    elif vm.announce is not None:
        vm.announce(f"VM {vm.name!r}: {vm.gdb}")
    if wait:
        left = wait_ready(vm, vm._ready, began, since=position)
        wait_settled(vm, left)
        vm._mount_shares(left)
    return Started("boot", began.elapsed, reason)


def _let_go(vm: VM) -> Deadline:
    """Wait for gdb to let the machine go on, however long that takes; return a new deadline."""
    with vm.qmp.expect_event("RESUME", timeout=None):
        if vm.announce is not None:
            vm.announce(f"VM {vm.name!r} waits for gdb, and for 'continue' in it: {vm.gdb}")
    return Deadline(vm._patience)


def clone(
    vm: VM, state: State, *, cold: Sequence[PlannedDrive], later: Sequence[PlannedDrive] = (), replay: bool = True
) -> Started:
    """Start the machine as a clone of a saved one; ``later`` are the drives that are plugged in then.

    ``replay`` lets its console begin with what the saved machine's has shown.

    Raises Damaged, Refused when QEMU does not take the state, LaunchError when it does not even start, BootTimeout when
    the guest does not come to itself, and what its resume commands raise.
    """
    began = Deadline(vm._patience)
    vm._revive()
    state.check()
    with opened(state.path / DEVICES) as devices, contextlib.closing(state.ram(vm._binary)) as ram:
        drives = prepare(cold, vm._folder, vm._binary, saved=state.path)
        forget(vm._folder)
        plan = _incoming(vm, state.guest, drives, ram, devices)
        vm._launch(began, plan)
        if vm.announce is not None:
            vm.announce(f"VM {vm.name!r}: {vm.gdb}")
        try:
            load(vm.qmp, f"fd:{devices}", began, without_ram=True)
        except (QMPError, QEMUExited, WaitTimeout) as error:
            raise Refused(f"VM {vm.name!r}: QEMU did not take the state in {state.path}: {error}") from error
    if vm.serial is not None and replay:
        vm.serial.replay((state.path / TRANSCRIPT).read_bytes(), (state.path / LOG).read_bytes())
    going = vm.qmp.begin("cont")
    vm._plan = replace(plan, ram=Ram(), incoming=False, inherited=())
    _come_to(vm, state.guest.lanes, began)
    going.result(began.remaining())
    if later:
        _plug(vm, later, began)
    vm._mount_shares(began)
    return Started("clone", began.elapsed)


def _incoming(
    vm: VM, guest: Guest, drives: Sequence[tuple[PlannedDrive, DriveFile]], ram: RamFiles, devices: int
) -> Plan:
    return replace(
        vm._plan,
        drives=drives,
        # QEMU writes the saved ones over these: the flash memory is part of its state.
        firmware=with_variables(vm._plan.firmware, vm._folder),
        nics=[replace(nic, mac=mac) for nic, mac in zip(vm._plan.nics, guest.macs, strict=True)],
        ports=shell_ports(guest.ports),
        ram=ram.private(),
        incoming=True,
        inherited=[devices],
    )


def rest(vm: VM) -> None:
    """Pause a machine that nobody needs yet."""
    if vm.shell is not None:
        # Emulated code is translated when it runs first, here instead of in the test; the second command begins when
        # the guest has made ready for it. They are not among what the test ran, as those of vm.run are.
        vm.shell.run("true")
        vm.shell.run("true")
    vm.pause()


def wake(vm: VM) -> None:
    """Let a machine that was resting run as if it had come up just now; raises MachineError."""
    vm.watch.check()
    vm.resume()
    _come_to(vm, (), Deadline(vm._patience))


def _come_to(vm: VM, lanes: Iterable[SavedLane], deadline: Deadline) -> None:
    """Let the guest of a clone have its own time of day and random numbers."""
    if vm.shell is not None:
        try:
            vm.shell.resume(lanes, deadline)
        except TimeoutError as error:
            vm.watch.check()
            raise BootTimeout(
                f"VM {vm.name!r} does not answer after it was cloned, for {deadline.seconds or 0.0:g} s "
                f"(accel={vm.accel}). Console is at:\n{vm._console_tail()}",
                timeout=deadline.seconds or 0.0,
            ) from error
        except OSError as error:
            vm.watch.check()
            raise MachineError(
                f"VM {vm.name!r} could not be set right after it was cloned: {error.strerror or error}. "
                f"Console is at:\n{vm._console_tail()}"
            ) from error
    if needs_repair(vm):
        repair(vm, deadline)
    for command in vm._image.resume if vm._image is not None else ():
        vm.run(command.replace("{now}", f"{time.time():.6f}"), timeout=deadline.remaining())
    # Where something had to be set right, a command has run over SSH.
    if vm._ready == "agent" or (vm._ready == "ssh" and not needs_repair(vm)):
        wait_ready(vm, vm._ready, deadline)


def _plug(vm: VM, drives: Sequence[PlannedDrive], deadline: Deadline) -> None:
    if vm.shell is None:
        raise TypeError("a guest without our shell cannot say that it has a drive")
    made = prepare(drives, vm._folder, vm._binary)
    present = sum(planned.drive.interface == "virtio" for planned, _ in vm._plan.drives)
    late.plug(made, name=vm.name, present=present, qmp=vm.qmp, shell=vm.shell, deadline=deadline)
    vm._plan = replace(vm._plan, drives=[*vm._plan.drives, *made])
