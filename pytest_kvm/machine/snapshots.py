"""A machine as it was at one moment: to go back to, and to begin others with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError, QEMUExited, QMPError, SpecError, WaitTimeout
from pytest_kvm.host.rundir import RunDir, make_run_dir
from pytest_kvm.machine.devices.unflushed import is_unflushed
from pytest_kvm.machine.eligibility import why_unsaved
from pytest_kvm.machine.firmware import with_variables
from pytest_kvm.machine.planning import shell_ports
from pytest_kvm.machine.repair import needs_repair, repair
from pytest_kvm.machine.saving import complete, guest_of, save_devices
from pytest_kvm.machine.starting import Boot, Refused, Started, clone
from pytest_kvm.machine.state import Damaged, State
from pytest_kvm.qemu.memory import backends
from pytest_kvm.qemu.migration import NotSaved, loading, save
from pytest_kvm.qemu.plan import SEED_DISK, Plan, PlannedDrive, without_forwards
from pytest_kvm.qemu.ram import RamFiles
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# Seconds for a guest to have its clock set right; one that answers does so at once.
_CLOCK_PATIENCE = 10.0
# Fields that say nothing about what the guest sees.
_FREE = ("name", "hostfwd", "internet", "timeout", "autostart", "start")


class Snapshot:
    """What ``vm.snapshot()`` returns: memory, devices and disks of a machine at that moment.

    ``spec`` is what the machine was asked for. It lasts as long as the machine that it was taken of.
    """

    def __init__(self, spec: VMSpec, plan: Plan, image: Image | None, state: State, folder: RunDir) -> None:
        self.spec = spec
        self.plan = plan
        self.image = image
        self._state = state
        self._folder = folder
        self._ended = False

    def __repr__(self) -> str:
        return f"<Snapshot of VM {self.spec.name!r}{' (ended)' if self._ended else ''}>"

    @property
    def seed(self) -> Path | None:
        """The file of the machine's seed, None if it had none."""
        files = (drive.file for drive in self.plan.spec.drives if drive.id == SEED_DISK)
        return next((Path(file) for file in files if file is not None), None)

    def fits(self, spec: VMSpec) -> bool:
        """Return whether a machine of this spec can be in the snapshot's state."""
        return self.spec.replace(**{field: getattr(spec, field) for field in _FREE}) == spec

    def start(self, vm: VM, *, wait: bool = True, replay: bool = True) -> Started:
        """Let a machine begin with it; as an origin of machines does. Raises MachineError."""
        if self._ended:
            raise MachineError(f"VM {vm.name!r}: the snapshot has ended with its machine, VM {self.spec.name!r}")
        vm._plan = _with_plugged(vm._plan, self.plan)
        try:
            return clone(vm, self._state, cold=_drives(self.plan), replay=replay)
        except Damaged as error:
            raise MachineError(f"VM {vm.name!r}: the snapshot of VM {self.spec.name!r} is damaged: {error}") from error

    def close(self) -> None:
        """Remove it; machines that began with it go on, as long as they are not started again."""
        if not self._ended:
            self._ended = True
            self._state.close()
            self._folder.remove()


def _with_plugged(plan: Plan, saved: Plan) -> Plan:
    """Return a machine's plan with the devices that the saved machine had in the end; forwards stay its own."""
    forwards = plan.nics[0].forwards if plan.nics else ()
    nics = [replace(nic, forwards=() if number else forwards) for number, nic in enumerate(saved.nics)]
    return replace(plan, nics=nics, plugged=saved.plugged, unplugged=saved.unplugged, addresses=saved.addresses)


def _drives(plan: Plan) -> Sequence[PlannedDrive]:
    return [planned for planned, _ in plan.drives]


def take(vm: VM) -> Snapshot:
    """Return a snapshot of a running machine, which goes on then."""
    _check(vm)
    folder = make_run_dir()
    try:
        state = _save(vm, folder.path)
    except NotSaved as error:
        folder.remove()
        raise MachineError(f"VM {vm.name!r} cannot be saved: {error}") from error
    except OSError as error:
        folder.remove()
        raise MachineError(f"VM {vm.name!r}: no snapshot, {folder.path} cannot be written: {error.strerror}") from error
    except BaseException:
        folder.remove()
        raise
    return Snapshot(vm.spec, vm._plan, vm._image, state, folder)


def _check(vm: VM) -> None:
    vm._check_on()
    if vm._plan.ram is None:
        raise SpecError(
            f"VM {vm.name!r}: no snapshot of a machine with args=… or an unknown machine type; its memory is not ours",
            keyword="args" if vm.spec.args else "machine",
        )
    unsaved = why_unsaved(vm.spec)
    if unsaved is not None:
        raise SpecError(f"VM {vm.name!r}: no snapshot: {unsaved}", keyword="devices")
    if vm.shares:
        raise SpecError(
            f"VM {vm.name!r}: no snapshot of a machine with shares: what is mounted belongs to the host",
            keyword="shares",
        )
    if vm._run is not None and is_unflushed(vm._run):
        raise SpecError(
            f"VM {vm.name!r}: no snapshot of a machine with disks that lose what is unflushed: "
            "what is in their cache is no part of it",
            keyword="drives",
        )
    for planned, file in vm._plan.drives:
        if file.path.parent != vm._folder and not file.read_only:
            raise SpecError(
                f"VM {vm.name!r}: no snapshot of a machine whose drive {planned.id!r} writes to {file.path}: "
                "the file would be in two states at once; leave out snapshot=False",
                keyword="drives",
            )


def _save(vm: VM, into: Path) -> State:
    """Move the machine's state into a second QEMU, whose RAM is a file; that one is saved as templates are.

    Only RAM in a shared file can be mapped by others later, and that of a running machine is not: its changes are its
    own.
    """
    deadline = Deadline(vm._patience)
    was_running = vm.qmp.execute("query-status")["running"]
    with (
        contextlib.closing(RamFiles.empty(backends(vm.spec).values())) as ram,
        contextlib.ExitStack() as stack,
    ):
        shell = vm.shell
        if shell is not None:
            stack.enter_context(shell.held(deadline))
        ports = shell.ports if shell is not None else []
        stack.enter_context(_going_on(vm, was_running))
        if vm._share is not None:
            stack.callback(vm._share.beside("its snapshot").release)
        second = stack.enter_context(contextlib.closing(_second(vm, ram, ports)))
        socket = second._folder / "incoming"
        try:
            second._launch(deadline, second._plan)
            with loading(second.qmp, f"unix:{socket}", deadline, without_ram=False):
                save(vm.qmp, socket, deadline, without_ram=False)
        except (QMPError, QEMUExited, WaitTimeout) as error:
            vm.watch.check()
            raise Refused(f"VM {vm.name!r}: a second QEMU did not take its state: {error}") from error
        lanes = shell.saved() if shell is not None else []
        save_devices(second.qmp, vm._io, folder=second._folder, into=into, deadline=deadline)
        second._end_run()
        complete(
            into,
            guest_of(vm, ports, lanes, vm.started.seconds if vm.started is not None else 0.0),
            ram=ram,
            console=vm.serial,
            drives=vm._plan.drives,
            folder=vm._folder,
            binary=vm._binary,
        )
    return State.load(into)


@contextlib.contextmanager
def _going_on(vm: VM, was_running: bool) -> Iterator[None]:
    """Let the machine be as it was before, at the end of the block, with the right time of day."""
    try:
        yield
    finally:
        if vm.running:
            # A paused one must leave the state of having been saved: QEMU would not save it again.
            vm.qmp.execute_all(("cont", {}), *([] if was_running else [("stop", {})]))
            if was_running and vm.shell is not None:
                vm.shell.resume((), Deadline(vm._patience))
            elif was_running and needs_repair(vm):
                # The test may have stopped what would be needed; then the clock stays behind by a second.
                with contextlib.suppress(MachineError):
                    repair(vm, Deadline(_CLOCK_PATIENCE))


def _second(vm: VM, ram: RamFiles, ports: Sequence[str]) -> VM:
    folder = make_run_dir()
    plan = replace(
        without_forwards(vm._plan),
        firmware=with_variables(vm._plan.firmware, folder.path),
        ports=shell_ports(ports),
        ram=ram.shared(),
        incoming=True,
    )
    return type(vm)(
        vm.spec,
        plan,
        binary=vm._binary,
        image=vm._image,
        folder=folder,
        io=vm._io,
        timeout=vm._timeout,
        pace=vm.watch.pace,
        origin=Boot(()),
    )
