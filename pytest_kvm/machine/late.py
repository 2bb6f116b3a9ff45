"""Drives that are plugged in after the restore: given files, which may be others next time.

A template that has them would be of use to one file only. A hot-plugged drive costs each clone some 0.5 s, so what
does not change from test to test, an empty disk for example, is part of the template.
"""

from __future__ import annotations

from dataclasses import replace

from pytest_kvm.errors import QMPError
from pytest_kvm.guest.shell.shell import Shell
from pytest_kvm.machine.run import LOCK, in_use
from pytest_kvm.qemu.blocks import device, node, sayable
from pytest_kvm.qemu.cmdline import ROOT_PORTS
from pytest_kvm.qemu.plan import IMAGE_DISKS, SEED_DISK, DriveFile, PlannedDrive, machine_kind
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline

_LETTERS = 26
# The guest numbers its disks as they appear, and has read the partition table when it lets us open one.
_APPEARS = "until set -- /sys/block/vd* && [ -e $1 ] && [ $# -ge {count} ]; do usleep 2000; done; : <{disk}"


def split(
    planned: list[PlannedDrive], spec: VMSpec, image: Image | None
) -> tuple[list[PlannedDrive], list[PlannedDrive]]:
    """Return a template's drives, and those that come later, on the root port that each has then.

    These are the given files on virtio, and all virtio disks after the first of them: letters stay in order.
    """
    ports = machine_kind(spec.machine) == "q35" and "rootports" in (spec.extras or ())
    another_guest = spec.kernel is not None or spec.initrd is not None
    if image is None or not image.shell or another_guest or not ports:
        return planned, []
    if any(each.id == SEED_DISK for each in planned):
        return planned, []  # it comes after all other disks
    disks = [each for each in planned if each.drive.interface == "virtio" and each.id not in IMAGE_DISKS]
    first = next((number for number, each in enumerate(disks) if each.drive.file is not None), len(disks))
    late = disks[first:]
    if (
        len(late) + len(spec.shares) > ROOT_PORTS
        or len(planned) > _LETTERS
        or not all(_pluggable(each) for each in late)
    ):
        return planned, []
    return (
        [each for each in planned if each not in late],
        [replace(each, port=f"rootport{number}") for number, each in enumerate(late)],
    )


def _pluggable(planned: PlannedDrive) -> bool:
    # Firmware looks for what it boots from before; properties may be about what a root port changes; QMP has names of
    # files in JSON.
    drive = planned.drive
    return drive.bootindex is None and not drive.properties and (drive.file is None or sayable(drive.file))


def plug(
    drives: list[tuple[PlannedDrive, DriveFile]], *, name: str, present: int, qmp: QMP, shell: Shell, deadline: Deadline
) -> None:
    """Plug drives in, one after the other, and wait for the guest to have each.

    ``present`` is how many virtio disks there are already. Raises DriveInUse, QMPError, MachineError.
    """
    for number, (planned, file) in enumerate(drives, start=present):
        driver, settings = device(planned, "q35")
        given = {key: value for key, value in settings.items() if value is not None}
        try:
            qmp.execute_all(("blockdev-add", node(planned, file)), ("device_add", {"driver": driver, **given}))
        except QMPError as error:
            if LOCK.search(str(error)):
                raise in_use(name, [planned], str(error)) from error
            raise
        disk = f"/dev/vd{chr(ord('a') + number)}"
        shell.run(_APPEARS.format(count=number + 1, disk=disk), timeout=deadline.remaining())
