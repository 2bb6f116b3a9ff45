"""What is in a CD-ROM or floppy drive: taken out and put in while the guest runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import CommandTimeout, MachineError, SpecError, TrayLocked
from pytest_kvm.files import why_unreadable
from pytest_kvm.machine.devices.layers import backend, backend_id, current, remove_filters, replace_drive
from pytest_kvm.machine.devices.places import PAUSE
from pytest_kvm.machine.disks import NO_MEDIUM, check_references_of, prepare
from pytest_kvm.qemu.blocks import node, sayable
from pytest_kvm.qemu.plan import PlannedDrive
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_PATIENCE = Usual(10)
# To open it is to look whether there is another medium. An IDE drive tells of a change in two steps, the second of
# which the first read gets (QEMU's hw/ide/atapi.c, cdrom_changed).
_NOTICED = (
    "until true <{node} && true <{node} && dd if={node} of=/dev/null bs=2048 count=1; do {pause}; done 2>/dev/null"
)
_EMPTY = "while true <{node}; do {pause}; done 2>/dev/null"


def medium(vm: VM, id: str) -> Path | None:
    """Return the host's file that is in a drive; None when there is none, or it lies in the open tray."""
    _check_removable(vm, id)
    planned, file = current(vm, id)
    state = backend(vm, id)
    if planned.ejected or "inserted" not in state or state.get("tray_open"):
        return None
    return Path(planned.drive.file) if planned.drive.file is not None else file.path


def eject(vm: VM, id: str, *, force: bool, wait: bool) -> None:
    """Take the medium out; does nothing when there is none. Raises SpecError, TrayLocked."""
    _check_removable(vm, id)
    planned, _ = current(vm, id)
    if planned.ejected:
        return
    _take_out(vm, id, force=force)
    if wait:
        _wait(vm, id, _EMPTY, "that it is empty")


def change(vm: VM, id: str, path: str | os.PathLike[str], format_: str | None, *, force: bool, wait: bool) -> None:
    """Put another medium in, in place of what is there. Raises SpecError, TrayLocked."""
    _check_removable(vm, id)
    planned, _ = current(vm, id)
    wanted = _with(planned, path, format_)
    if not planned.ejected:
        _take_out(vm, id, force=force)
    [(_, file)] = prepare([wanted], vm._folder, vm._binary)
    name = backend_id(vm, id)
    vm.qmp.execute("blockdev-open-tray", {"id": name, "force": True})
    vm.qmp.execute("blockdev-add", node(wanted, file))
    vm.qmp.execute("blockdev-insert-medium", {"id": name, "node-name": id})
    vm.qmp.execute("blockdev-close-tray", {"id": name})
    replace_drive(vm, id, wanted, file)
    if wait:
        _wait(vm, id, _NOTICED, "the new one")


def _check_removable(vm: VM, id: str) -> None:
    vm._check_on()
    planned, _ = current(vm, id)
    if planned.drive.media != "cdrom" and planned.drive.interface != "floppy":
        raise SpecError(
            f"VM {vm.name!r}: drive {id!r} is a disk, from which nothing can be taken out; "
            "media='cdrom' and interface='floppy' have media",
            keyword="drives",
        )


def _with(planned: PlannedDrive, path: str | os.PathLike[str], format_: str | None) -> PlannedDrive:
    path = os.path.abspath(path)
    drive = replace(planned.drive, file=path, size=None, format=format_, snapshot=True)
    reason = why_unreadable(Path(path))
    if reason is None and not sayable(path):
        reason = "QMP has no way to name a file whose name is not UTF-8"
    if reason is not None:
        raise SpecError(f"disk.change({path!r}): {reason}", keyword="path", value=path)
    check_references_of(drive)
    return replace(planned, drive=drive, ejected=False)


def _take_out(vm: VM, id: str, *, force: bool) -> None:
    name = backend_id(vm, id)
    vm.qmp.execute("blockdev-open-tray", {"id": name, "force": force})
    # Of a locked one the guest has been asked to open it, and QEMU says that all is well.
    if backend(vm, id).get("tray_open") is False:
        raise TrayLocked(
            f"VM {vm.name!r}: the guest has locked the tray of drive {id!r}, it has the medium mounted or open; "
            "have it let go, or say force=True",
            drive=id,
        )
    remove_filters(vm, id)
    vm.qmp.execute("blockdev-remove-medium", {"id": name})
    vm.qmp.execute("blockdev-del", {"node-name": id})
    replace_drive(vm, id, replace(current(vm, id)[0], ejected=True), NO_MEDIUM)


def _wait(vm: VM, id: str, script: str, what: str) -> None:
    deadline = Deadline(vm.watch.limit(_PATIENCE))
    name = vm.disk(id).node
    try:
        vm.run(script.format(node=name, pause=PAUSE), timeout=deadline.remaining())
    except CommandTimeout as error:
        raise MachineError(
            f"VM {vm.name!r}: the medium of drive {id!r} is another one, but the guest does not see {what} at {name} "
            f"after {deadline.seconds or 0.0:g} s; is the old one mounted there?"
        ) from error
