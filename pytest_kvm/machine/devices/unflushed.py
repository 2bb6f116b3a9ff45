"""A disk with a volatile write cache: what the guest has not flushed is lost when the power is.

From then on QEMU writes to an overlay, and keeps a log of it (blklogwrites). When it has ended, the disk is what it was
before with the log's writes up to the last flush; the overlay is thrown away. One that ends in good order flushes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError, QemuImgError, SpecError
from pytest_kvm.images.qemu_img import create_overlay, qemu_img
from pytest_kvm.machine.devices.layers import change_bottom, current, layers_of, new_node, replace_drive, use
from pytest_kvm.machine.devices.writelog import NotALog, replay
from pytest_kvm.qemu.plan import DriveFile

if TYPE_CHECKING:
    from pytest_kvm.machine.machine import Machine
    from pytest_kvm.machine.run import Run
    from pytest_kvm.machine.vm import VM

# Seconds for QEMU to end the requests that it has begun.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Unflushed:
    """A drive's file as it was, what is written instead, and the log of that; ``node`` is that of the overlay."""

    base: DriveFile
    overlay: Path
    log: Path
    node: str


def lose_unflushed(vm: VM, id: str) -> None:
    """Let a disk have a volatile cache from now on."""
    vm._check_on()
    layers = layers_of(vm, id)
    if layers.unflushed is not None:
        return
    _check(vm, id)
    planned, base = current(vm, id)
    folder = Path(tempfile.mkdtemp(prefix=f"{id}.", dir=vm._folder))
    overlay, log = folder / "overlay.qcow2", folder / "log"
    try:
        create_overlay(vm._binary, on=base.path, format_=base.format, at=overlay)
        log.touch()
    except OSError as error:
        raise MachineError(f"VM {vm.name!r}: no disk can be made in {folder}: {error.strerror}") from error
    base_node = layers.bottom
    top, below, record, logging = (new_node(vm, kind) for kind in ("unflushed", "overlay", "log", "logging"))
    vm.qmp.execute_all(
        ("blockdev-add", {"driver": "file", "node-name": record, "filename": str(log)}),
        (
            "blockdev-add",
            {
                "driver": "qcow2",
                "node-name": below,
                "file": {"driver": "file", "filename": str(overlay)},
                "backing": base_node,
                "discard": planned.drive.discard or "ignore",
            },
        ),
        (
            "blockdev-add",
            # How many entries there are is written with each of them: nobody has time for it at the end.
            {
                "driver": "blklogwrites",
                "node-name": logging,
                "file": below,
                "log": record,
                "log-super-update-interval": 1,
            },
        ),
        # The log has no FUA (block/blklogwrites.c). A node above it that has none either makes a flush of it, which is
        # logged; done by the log's own node it would not be, since that does not count its write as done yet.
        ("blockdev-add", {"driver": "raw", "node-name": top, "file": logging}),
    )
    change_bottom(vm, id, top)
    # What is in QEMU's memory of its file, tables of qcow2 for example, must be there when QEMU is killed.
    said = vm.qmp.hmp(f"qemu-io {base_node} flush").strip()
    if said:
        raise MachineError(f"VM {vm.name!r}: drive {id!r} cannot be flushed: {said}")
    vm.watcher.nodes[top] = id
    layers.unflushed = Unflushed(base, overlay, log, below)
    replace_drive(vm, id, planned, DriveFile(overlay, "qcow2"))


def _check(vm: VM, id: str) -> None:
    planned, file = current(vm, id)
    reason = ""
    if planned.drive.media == "cdrom" or planned.drive.interface == "floppy":
        reason = "it is a medium, not a disk"
    elif planned.drive.interface == "nvme":
        # Linux ends a transaction of ext4's with such a write, and no flush after it.
        reason = "QEMU's NVMe disks take a write with FUA for any other, so it would be lost; use virtio or scsi"
    elif file.read_only:
        reason = "it is read-only"
    elif file.path.parent != vm._folder:
        reason = f"its file, {file.path}, is not the machine's own; leave out snapshot=False"
    elif vm._binary.version < (4, 0):
        reason = f"QEMU {vm._binary.version_text} cannot log writes"
    if reason:
        raise SpecError(f"VM {vm.name!r}: drive {id!r} can have no volatile cache: {reason}", keyword="drives")


def is_unflushed(run: Run) -> bool:
    """Return whether a disk of a running QEMU has a volatile cache."""
    return any(layers.unflushed is not None for layers in run.layers.values())


def freeze(vm: VM) -> None:
    """Log nothing any more, once what the guest has been told was done is in the log.

    Whoever kills QEMU then knows that it did not happen between a flush and its place in the log.
    """
    run = vm._run
    if run is None or not run.process.running:
        return
    for id, layers in run.layers.items():
        if layers.unflushed is not None:
            # A QEMU that does not answer is killed all the same.
            with contextlib.suppress(MachineError, concurrent.futures.TimeoutError):
                run.qmp.begin("qom-set", use(vm, id, layers.unflushed.node)).result(_PATIENCE)


def settle(vm: Machine, run: Run) -> None:
    """Let the disks of a QEMU that has ended have what was flushed to them. Raises MachineError."""
    for id, layers in run.layers.items():
        if layers.unflushed is not None:
            planned, _ = current(vm, id)
            try:
                replace_drive(vm, id, planned, _settled(vm, id, layers.unflushed))
            except (OSError, NotALog, QemuImgError) as error:
                raise MachineError(
                    f"VM {vm.name!r}: what was flushed to drive {id!r} cannot be written to its file: {error}"
                ) from error


def _settled(vm: Machine, id: str, unflushed: Unflushed) -> DriveFile:
    base = unflushed.base
    if base.format != "raw":
        flat = unflushed.overlay.with_name(f"{id}.raw")
        qemu_img(vm._binary, "convert", "-f", base.format, "-O", "raw", str(base.path), str(flat))
        base = DriveFile(flat, "raw")
    with unflushed.log.open("rb") as log, base.path.open("r+b") as disk:
        replay(log.fileno(), disk.fileno())
    unflushed.log.unlink()
    unflushed.overlay.unlink()
    if base is not unflushed.base:
        moved = unflushed.base.path.with_name(f"{unflushed.overlay.parent.name}.raw")
        os.replace(base.path, moved)
        unflushed.base.path.unlink()
        base = replace(base, path=moved)
    unflushed.overlay.parent.rmdir()
    return base
