"""Saving a machine as it is when its test fails, whatever state it is in, into a folder that needs nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import MachineError, QEMUExited, QemuImgError, QMPError
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.images.qemu_img import qemu_img
from pytest_kvm.machine.board import having_read
from pytest_kvm.machine.planning import shell_ports
from pytest_kvm.machine.preserved import LOG, MEMORY, OFF, RUNNING, SHOWN, Preserved, disk, files_of, write
from pytest_kvm.machine.repair import needs_repair, repair
from pytest_kvm.qemu.migration import ENDS, NotSaved, preparations
from pytest_kvm.qemu.plan import DEFAULT_MACHINE, DriveFile, Plan, PlannedDrive, Ram
from pytest_kvm.qemu.qmp import Event
from pytest_kvm.qemu.sockets import Listener
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# Seconds for all that QEMU does, and for a guest, which may be the one that hangs.
_PATIENCE = 120.0
_GUEST_PATIENCE = 5.0
_CHUNK = 1 << 20
# A third of the size, in 1.4 s for the built-in guest; more takes longer and wins little.
_LEVEL = 1
# zlib takes five times as long as zstd, so a qemu-img without that compresses nothing.
_COMPRESSIONS: Sequence[Sequence[str]] = (("-c", "-o", "compression_type=zstd"), ())


def preserve(vm: VM, into: Path, *, test: str) -> list[str]:
    """Save the machine of a ``test`` in the new folder ``into``; return what could not be, a line each.

    A running machine goes on then. Of one that is off, or that QEMU cannot save, there are the disks. Raises
    MachineError when QEMU does not answer, OSError when something cannot be written; then there is no folder.
    """
    if not vm.command:
        raise MachineError(f"VM {vm.name!r} was never started: there is nothing to save")
    into.mkdir(parents=True)
    try:
        return _preserve(vm, into, test)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _preserve(vm: VM, into: Path, test: str) -> list[str]:
    remarks: list[str] = []
    lanes: list[SavedLane] = []
    status, machine = OFF, ""
    with contextlib.ExitStack() as stack:
        if vm.lives:
            asking = _Asking(vm, Deadline(_PATIENCE))
            status = asking("query-status")["status"]
            machine = asking("qom-get", {"path": "/machine", "property": "type"}).removesuffix("-machine")
            stack.enter_context(_held(vm, status))
            stack.enter_context(_going_on(vm, status))
            try:
                _save_memory(asking, into / MEMORY)
            except NotSaved as error:
                remarks.append(f"only its disks, without memory and devices: {error}")
            if vm.shell is not None:
                lanes = vm.shell.saved()
        else:
            remarks.append("only its disks: it is off, memory and devices are gone")
        _save_files(vm, into)
        about = {"name": vm.name, "test": test, "saved": time.strftime("%Y-%m-%d %H:%M:%S")}
        about |= {"qemu": vm._binary.version_text, "machine": machine, "accel": vm.accel}
        preserved = Preserved(
            path=into,
            plan=_lasting(vm, machine),
            image=vm._image,
            status=status,
            loaded=(into / MEMORY).exists(),
            lanes=lanes,
            about=about,
        )
        write(into, preserved)
    return remarks


class _Asking:
    """Asks QEMU, which may be the one that hangs: all answers have the same deadline."""

    def __init__(self, vm: VM, deadline: Deadline) -> None:
        self.vm = vm
        self.deadline = deadline

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        answer = self.vm.qmp.execute_async(command, arguments)
        try:
            return self.vm._io.run(asyncio.wait_for(answer, self.deadline.remaining()))
        except TimeoutError:
            limit = self.deadline.seconds or 0.0
            raise MachineError(f"VM {self.vm.name!r}: QEMU did not answer {command!r} within {limit:g} s") from None


@contextlib.contextmanager
def _held(vm: VM, status: str) -> Iterator[None]:
    """Begin no command inside the block; one that the guest does not take is left where it is."""
    with contextlib.ExitStack() as stack:
        if vm.shell is not None and status == RUNNING:
            with contextlib.suppress(MachineError):
                stack.enter_context(vm.shell.held(Deadline(_GUEST_PATIENCE)))
        yield


@contextlib.contextmanager
def _going_on(vm: VM, status: str) -> Iterator[None]:
    """Let a running machine run again at the end of the block, with the right time of day if its guest is all right.

    One that has panicked stays stopped: a further instruction could reboot it.
    """
    try:
        yield
    finally:
        if vm.lives and status in (RUNNING, "paused"):
            # A paused one must leave the state of having been saved: QEMU would not save it again.
            vm.qmp.execute_all(("cont", {}), *([] if status == RUNNING else [("stop", {})]))
        if vm.running and status == RUNNING:
            with contextlib.suppress(MachineError, OSError):
                if vm.shell is not None and vm.shell.ready:
                    vm.shell.resume((), Deadline(_GUEST_PATIENCE))
                elif needs_repair(vm):
                    repair(vm, Deadline(_GUEST_PATIENCE))


def _save_memory(asking: _Asking, into: Path) -> None:
    """Write memory and devices; the machine is stopped then, and its disks are up to date. Raises NotSaved."""
    if asking.vm.shares:
        asking("stop")
        raise NotSaved("it has shares, which belong to the host")
    try:
        _migrate(asking, into)
    except (QMPError, QEMUExited, NotSaved, TimeoutError) as error:
        into.unlink(missing_ok=True)
        if asking.vm.lives:
            asking("stop")
        reason = "QEMU did not finish in time" if isinstance(error, TimeoutError) else str(error)
        raise NotSaved(reason) from error


def _migrate(asking: _Asking, into: Path) -> None:
    vm, deadline = asking.vm, asking.deadline
    qmp, since = vm.qmp, len(vm.qmp.events)
    with contextlib.closing(Listener(vm._folder / "state")) as listener:
        for command, arguments in preparations(without_ram=False):
            asking(command, arguments)
        asking("migrate", {"uri": f"unix:{listener.path}"})
        # QEMU has connected, or is about to.
        listener.socket.settimeout(deadline.remaining())
        connection, _ = listener.socket.accept()
        with connection, gzip.open(into, "wb", compresslevel=_LEVEL) as target:
            connection.settimeout(deadline.remaining())
            while data := connection.recv(_CHUNK):
                target.write(data)
    # That the guest has panicked is no reason not to wait; that QEMU has ended is one.
    vm.watch.wait_only(lambda: not vm.lives or _has_ended(qmp.events[since:]), deadline)
    status = asking("query-migrate")
    if status.get("status") != "completed":
        raise NotSaved(f"QEMU could not save them: {status.get('error-desc', status.get('status'))}")


def _has_ended(events: Sequence[Event]) -> bool:
    return any(event["event"] == "MIGRATION" and event["data"]["status"] in ENDS for event in events)


def _save_files(vm: VM, into: Path) -> None:
    """Write what is in files: disks, with all that they are overlays on, kernel and console."""
    for planned, file in vm._plan.drives:
        if planned.ejected:
            continue
        _save_disk(vm, planned, file, into)
    for name, path in files_of(vm._plan):
        shutil.copyfile(path, into / name)
    (into / LOG).write_bytes(vm.serial.log_path.read_bytes() if vm.serial is not None else b"")
    (into / SHOWN).write_bytes(vm.serial.last() if vm.serial is not None else b"")


def _save_disk(vm: VM, planned: PlannedDrive, file: DriveFile, into: Path) -> None:
    target = into / disk(planned)
    for compression in _COMPRESSIONS:
        try:
            # -U: QEMU may have it open, but nobody writes to it now.
            arguments = ("-U", "-f", file.format, "-O", "qcow2", *compression, str(file.path), str(target))
            qemu_img(vm._binary, "convert", *arguments)
        except QemuImgError as error:
            if not compression:
                raise OSError(errno.EIO, str(error), str(target)) from error
        else:
            return


def _lasting(vm: VM, machine: str) -> Plan:
    """Return the plan of the machine as it is now, without what is of this run only."""
    plan = vm._plan
    first, comma, rest = (plan.spec.machine or DEFAULT_MACHINE).partition(",")
    if machine and ("=" not in first or first.startswith("type=")):
        first = machine  # what q35 means changes with QEMU's version
    return replace(
        plan,
        spec=having_read(plan.spec, Path.read_bytes).replace(machine=first + comma + rest, shares=[]),
        ports=shell_ports(vm.shell.ports) if vm.shell is not None else plan.ports,
        ram=Ram() if plan.ram is not None else None,
        incoming=False,
        inherited=(),
        monitor=None,
        gdb=None,
        halted=False,
    )
