"""Devices that a running machine has, as a test sees them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import QMPError, SpecError
from pytest_kvm.machine.devices.faults import Fault, fail
from pytest_kvm.machine.devices.medium import change, eject, medium
from pytest_kvm.machine.devices.nodes import disk_script, interface_script, port_script
from pytest_kvm.machine.devices.places import PERIPHERAL, Place, find_in_guest, get, host_of, place_of
from pytest_kvm.machine.devices.resizing import resize
from pytest_kvm.machine.devices.throttling import Throttle, throttle
from pytest_kvm.machine.devices.unflushed import lose_unflushed
from pytest_kvm.qemu.plan import PlannedDrive, PlannedNic
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# Its driver has had the time of the boot; what is plugged in is waited for elsewhere.
_PATIENCE = Usual(10)


class AttachedDevice:
    """A device of a running machine: ``id`` is QEMU's id, ``driver`` QEMU's name of the device."""

    def __init__(self, vm: VM, id: str, driver: str) -> None:
        self._vm = vm
        self.id = id
        self.driver = driver

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} ({self.driver}) of VM {self._vm.name!r}>"

    @property
    def qom_path(self) -> str:
        """Where it is in QEMU's tree of objects."""
        return f"{PERIPHERAL}/{self.id}"

    @property
    def properties(self) -> Mapping[str, Any]:
        """All properties that QEMU can read, as they are now."""
        listed = self._vm.qmp.execute("device-list-properties", {"typename": self.driver})
        found = {}
        for each in listed:
            try:
                found[each["name"]] = self.get(each["name"])
            except SpecError:  # some can only be written
                continue
        return found

    def get(self, name: str) -> Any:
        """Return a property (QMP's qom-get); raises SpecError when it has none of that name that can be read."""
        try:
            return get(self._vm, self.qom_path, name)
        except QMPError as error:
            raise SpecError(f"device {self.id!r} ({self.driver}): {error}", keyword=name) from error

    def set(self, name: str, value: object) -> None:
        """Set a property (QMP's qom-set); most cannot be while the machine runs. Raises QMPError."""
        self._vm.qmp.execute("qom-set", {"path": self.qom_path, "property": name, "value": value})

    @property
    def place(self) -> Place:
        """Where the guest finds it; raises MachineError for one that is neither on PCI nor virtio-mmio."""
        return place_of(self._vm, self.id)

    @property
    def address(self) -> str:
        """Its address: on PCI as ``0000:00:03.0``, on virtio-mmio that of its registers; raises as ``place`` does."""
        return self.place.address

    def _find(self, script: str, what: str, deadline: Deadline | None = None) -> str:
        if deadline is None:
            deadline = Deadline(self._vm.watch.limit(_PATIENCE))
        return find_in_guest(self._vm, script, f"{what} of device {self.id!r} ({self.driver})", deadline)


class AttachedPort(AttachedDevice):
    """A port or console of virtio-serial."""

    @property
    def node(self) -> str:
        """The guest's device file, such as ``/dev/vport2p1`` or ``/dev/hvc0``."""
        return f"/dev/{self._find(port_script(self._vm, self.id, self.driver), 'the port')}"

    def connect(self) -> socket.socket:
        """Return a socket that is the host's end of it, until it is closed; one at a time.

        Raises OSError when another one is connected.
        """
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._vm._folder / self.id))
        except OSError:
            connection.close()
            raise
        return connection


class AttachedNic(AttachedDevice):
    """A network card; ``mac`` is its address."""

    def __init__(self, vm: VM, planned: PlannedNic, driver: str) -> None:
        super().__init__(vm, planned.id, driver)
        self.mac = planned.mac

    @property
    def ifname(self) -> str:
        """The guest's name of it, such as ``eth0``; raises MachineError when the guest has no driver for it."""
        return self.wait()

    def wait(self, deadline: Deadline | None = None) -> str:
        """Return the guest's name of it, as soon as it has one."""
        return self._find(interface_script(self.place), "the interface", deadline)


class AttachedDisk(AttachedDevice):
    """A disk, CD-ROM or floppy."""

    def __init__(self, vm: VM, planned: PlannedDrive, driver: str) -> None:
        super().__init__(vm, planned.id, driver)
        self._planned = planned

    @property
    def node(self) -> str:
        """The guest's device file, such as ``/dev/vda``; raises MachineError when the guest has no driver for it."""
        return self.wait()

    def fail(
        self,
        *operations: str,
        errno: int | str = "EIO",
        sectors: int | range | None = None,
        once: bool = False,
    ) -> Fault:
        """Answer the guest's requests with an error from now on, or during a ``with`` block.

        ``operations`` are QEMU's ``read``, ``write``, ``write-zeroes``, ``discard`` and ``flush`` (default: all).
        ``errno`` is the error, ``sectors`` says which sectors of 512 bytes have it (a number or a range, default: the
        whole disk): a request fails that touches one of them. ``once`` lets the next such request of each operation
        fail and no other; a kernel may just try again, as it does with SCSI commands and what it reads ahead. For
        ENOSPC, a write does not fail, but QEMU stops the guest, unless the device has ``werror=report``: see
        ``vm.expect_drive_failure``. All of it ends with QEMU's run. Returns what ``remove()`` takes away again. Raises
        SpecError. Source: QEMU's qapi/block-core.json, BlockdevOptionsBlkdebug.
        """
        return fail(self._vm, self.id, operations, errno, sectors, once=once)

    def throttle(
        self,
        iops: int | None = None,
        *,
        iops_rd: int | None = None,
        iops_wr: int | None = None,
        bps: int | str | None = None,
        bps_rd: int | str | None = None,
        bps_wr: int | str | None = None,
    ) -> Throttle:
        """Let it be slow from now on, or during a ``with`` block; ``throttle(None)`` lets it be fast again.

        ``iops`` is how many requests, ``bps`` how many bytes it does in a second (QEMU's text such as ``"1M"``, a
        number: bytes); those with ``_rd`` are of reading, with ``_wr`` of writing alone. The first second's worth of
        requests may go through at once. Limits replace those that there were. Raises SpecError, QMPError. Source:
        QEMU's docs/throttle.txt.
        """
        given = {"iops": iops, "iops_rd": iops_rd, "iops_wr": iops_wr, "bps": bps, "bps_rd": bps_rd, "bps_wr": bps_wr}
        return throttle(self._vm, self.id, given)

    def resize(self, size: int | str, *, shrink: bool = False, wait: bool = True) -> None:
        """Change its size while the guest runs; returns when the guest sees it (``wait=False``: at once).

        ``size`` is QEMU's text such as ``"96M"``, or bytes. A guest hears of it from a disk on virtio or SCSI; at one
        on USB it is made to look (``rescan`` in its /sys). Smaller needs ``shrink=True``: what is beyond is lost, and
        nobody asks the guest whether it used it. Raises SpecError for a drive that cannot be, MachineError when the
        guest does not see it.
        """
        resize(self._vm, self.id, size, shrink=shrink, wait=wait)

    @property
    def medium(self) -> Path | None:
        """The host's file that is in a CD-ROM or floppy drive; None when there is none, or the tray is open."""
        return medium(self._vm, self.id)

    def eject(self, *, force: bool = False, wait: bool = True) -> None:
        """Take the medium out of a CD-ROM or floppy drive; returns when the guest notices (``wait=False``: at once).

        Does nothing to an empty drive. Raises TrayLocked when the guest has locked the tray, which ``force=True``
        opens nevertheless; the guest has been asked then to open it itself. Raises SpecError for a disk.
        """
        eject(self._vm, self.id, force=force, wait=wait)

    def change(
        self, path: str | os.PathLike[str], *, format: str | None = None, force: bool = False, wait: bool = True
    ) -> None:
        """Put another medium into a CD-ROM or floppy drive; returns when the guest can read it.

        ``path`` is a file, which is never written, ``format`` its format (default: found out). Otherwise as ``eject``.
        The machine keeps it over ``start()``, and a snapshot has what was in the drive. Raises SpecError for a file
        that is missing, TrayLocked.
        """
        change(self._vm, self.id, path, format, force=force, wait=wait)

    def lose_unflushed(self) -> None:
        """Have a volatile write cache from now on: ``vm.power_cut()`` loses what the guest has not flushed.

        What was written before counts as flushed. Everything else that ends QEMU in good order, the guest's shutdown
        for example, keeps what was written. After the next start the disk is an ordinary one. Raises SpecError for a
        drive that is not the machine's own, and for media. Source: QEMU's qapi/block-core.json,
        BlockdevOptionsBlklogwrites.
        """
        lose_unflushed(self._vm, self.id)

    def wait(self, deadline: Deadline | None = None) -> str:
        """Return the guest's device file, as soon as there is one."""
        return f"/dev/{self._find(disk_script(self._vm, self._planned, self._controller()), 'the disk', deadline)}"

    def _controller(self) -> Place | None:
        if self._planned.drive.interface in ("virtio", "nvme"):
            return self.place
        if self._planned.drive.interface not in ("scsi", "usb"):
            return None
        host = host_of(self._vm, self.id)
        return place_of(self._vm, host) if host else None
