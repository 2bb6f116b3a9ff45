"""How large a drive is: changed while the guest runs, and the guest made to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kvm.errors import CommandTimeout, MachineError, SpecError
from pytest_kvm.machine.devices.layers import backend, current, layers_of
from pytest_kvm.machine.devices.places import PAUSE
from pytest_kvm.spec.drive import SECTOR
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.wording import Rejected, shown
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_PATIENCE = Usual(10)
# The guest's drivers hear of it (drivers/block/virtio_blk.c, virtblk_config_changed; drivers/scsi/virtio_scsi.c,
# virtscsi_handle_param_change), but for that of USB disks, which has to be told to look.
_INTERFACES = ("virtio", "scsi", "usb")


def resize(vm: VM, id: str, size: int | str, *, shrink: bool, wait: bool) -> None:
    """Make a drive as large as that; raises SpecError for what cannot be, MachineError when the guest sees nothing."""
    vm._check_on()
    subject = f"VM {vm.name!r}: drive {id!r}"
    wanted = _bytes(subject, size)
    _check(vm, id, subject)
    inserted = backend(vm, id)["inserted"]
    if not isinstance(inserted, dict):
        raise TypeError(f"{inserted!r} is no BlockDeviceInfo")
    was = int(inserted["image"]["virtual-size"])
    if wanted < was and not shrink:
        raise SpecError(
            f"{subject} has {was} bytes, and would lose all beyond {wanted}; say shrink=True if that is meant",
            keyword="size",
            value=size,
        )
    vm.qmp.execute("block_resize", {"node-name": layers_of(vm, id).top, "size": wanted})
    if wait:
        _wait(vm, id, wanted)


def _bytes(subject: str, size: int | str) -> int:
    try:
        wanted = read_size(size, "B")
    except Rejected as reason:
        raise SpecError(f"{subject} cannot be resized: {reason}", keyword="size", value=size) from None
    if wanted % SECTOR:
        raise SpecError(
            f"{subject} cannot be resized: a disk has whole sectors of {SECTOR} bytes, got {shown(size)}",
            keyword="size",
            value=size,
        )
    return wanted


def _check(vm: VM, id: str, subject: str) -> None:
    planned, file = current(vm, id)
    interface = planned.drive.interface
    reason = ""
    if planned.drive.media == "cdrom":
        reason = "a CD-ROM is as large as its medium; change() puts in another one"
    elif interface not in _INTERFACES:
        reason = f"QEMU has no way to tell a guest of it on {interface}; use {', '.join(_INTERFACES)}"
    elif file.read_only:
        reason = "it is read-only"
    elif layers_of(vm, id).bottom != id:
        reason = "not while it loses what is unflushed"
    if reason:
        raise SpecError(f"{subject} cannot be resized: {reason}", keyword="size")


def _wait(vm: VM, id: str, wanted: int) -> None:
    deadline = Deadline(vm.watch.limit(_PATIENCE))
    name = vm.disk(id).node.removeprefix("/dev/")
    sees = f'[ "$(cat /sys/block/{name}/size)" = {wanted // SECTOR} ]'
    on_usb = current(vm, id)[0].drive.interface == "usb"
    look = f"echo 1 >/sys/block/{name}/device/rescan" if on_usb else ":"
    try:
        vm.run(f"until {sees}; do {look}; {PAUSE}; done", timeout=deadline.remaining())
    except CommandTimeout as error:
        raise MachineError(
            f"VM {vm.name!r}: drive {id!r} has {wanted} bytes now, but the guest does not see it after "
            f"{deadline.seconds or 0.0:g} s: /dev/{name} has {vm.run(f'cat /sys/block/{name}/size').stdout.strip()} "
            f"sectors of {SECTOR}"
        ) from error
