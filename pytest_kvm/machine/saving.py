"""Saving a running machine: its devices through QEMU's migration, its RAM and disks as files."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.files import copy_sparse
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.images.qemu_img import create_overlay
from pytest_kvm.machine.disks import EMPTY
from pytest_kvm.machine.state import DEVICES, LOG, TRANSCRIPT, Guest, ram_paths, write
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.migration import NotSaved, save
from pytest_kvm.qemu.plan import DEFAULT_MACHINE, DriveFile, PlannedDrive
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.qemu.ram import RamFiles
from pytest_kvm.qemu.sockets import Listener
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM


def save_devices(qmp: QMP, io: IOThread, *, folder: Path, into: Path, deadline: Deadline) -> None:
    """Write the state of all devices, without the RAM, to ``into``; the machine is stopped then.

    ``folder`` is the machine's own. Raises NotSaved, OSError when there is no room.
    """
    listener = Listener(folder / "state")
    try:
        with (into / DEVICES).open("wb") as file:
            received = asyncio.run_coroutine_threadsafe(_receive(listener.socket, file.fileno()), io.loop)
            try:
                save(qmp, listener.path, deadline, without_ram=True)
                received.result(deadline.remaining())
            except NotSaved:
                if received.done():
                    received.result()  # why the connection broke: there was no room
                raise
            finally:
                received.cancel()
                concurrent.futures.wait([received])  # it writes to the file
    finally:
        listener.close()
        listener.path.unlink(missing_ok=True)


async def _receive(listener: socket.socket, descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    connection, _ = await loop.sock_accept(listener)
    with connection:
        while data := await loop.sock_recv(connection, 1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]


def guest_of(vm: VM, ports: Sequence[str], lanes: Sequence[SavedLane], seconds: float) -> Guest:
    """Return what belongs to a machine's saved state beside its files; it became ready in so many seconds."""
    spec = vm.spec
    image = vm._image.label if vm._image is not None else "None"
    about = {"image": image, "machine": spec.machine or DEFAULT_MACHINE, "memory": str(spec.memory)}
    about |= {"smp": str(spec.smp), "accel": vm.accel, "qemu": vm._binary.version_text}
    return Guest(
        macs=[nic.mac for nic in vm._plan.nics], ports=list(ports), lanes=list(lanes), seconds=seconds, about=about
    )


def complete(
    into: Path,
    guest: Guest,
    *,
    ram: RamFiles,
    console: SerialPort | None,
    drives: Sequence[tuple[PlannedDrive, DriveFile]],
    folder: Path,
    binary: QEMUBinary,
) -> None:
    """Write all the rest of a machine's state: what its RAM holds and its ``console`` has shown, and its disks.

    The disks are those ``drives`` that the machine keeps in its own ``folder``; nobody writes to them now, nor to the
    RAM. Raises OSError.
    """
    for path, descriptor in zip(ram_paths(into), ram.descriptors, strict=False):
        with path.open("wb") as file:
            copy_sparse(descriptor, file.fileno())
    (into / TRANSCRIPT).write_bytes(console.since(0) if console is not None else b"")
    (into / LOG).write_bytes(console.log_path.read_bytes() if console is not None else b"")
    for planned, disk in drives:
        if disk.path.parent == folder:
            copy = into / disk.path.name
            with disk.path.open("rb") as source, copy.open("wb") as target:
                copy_sparse(source.fileno(), target.fileno())
            create_overlay(binary, on=copy, format_=disk.format, at=into / (planned.id + EMPTY))
    write(into, guest)
