"""Why a machine cannot begin as a clone of a template."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.devices import driver_of
from pytest_kvm.qemu.plan import IMAGE_DISKS, Plan, PlannedDrive, has_backend, machine_kind
from pytest_kvm.spec.devices.virtio import VirtioBalloon
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec

# x-ignore-shared, and all that goes with it, was tried with this version and newer ones only.
OLDEST = (7, 2)
# A property of the balloon.
REPORTING = "free-page-reporting"
# Devices whose state is outside QEMU: in the host's hardware, or in another process.
_OUTSIDE = ("vfio-", "vhost-user-", "vhost-scsi", "vhost-vsock", "vhost-vdpa", "usb-host", "ivshmem-", "virtio-9p-")
# Devices that QEMU passes over in silence when it saves a machine (hw/virtio/virtio-pmem.c has no state): the guest
# goes on with a driver whose device was never set up.
_FORGOTTEN = ("virtio-pmem",)


def why_not(spec: VMSpec, plan: Plan, cold: list[PlannedDrive], *, binary: QEMUBinary) -> str | None:
    """Return why no template can be made of a machine, None if nothing is known against it.

    ``cold`` are the drives that the template would have. What else QEMU cannot save shows when it is tried.
    """
    if binary.version < OLDEST:
        return f"QEMU {binary.version_text} is older than {'.'.join(map(str, OLDEST))}"
    if spec.args:
        return f"args={list(spec.args)!r} is passed to QEMU unread: nobody knows whether a clone could have it"
    if not has_backend(spec) or plan.ram is None:
        return f"machine={spec.machine!r} is not one whose memory can be kept in a file"
    for planned in cold:
        if planned.drive.snapshot is False and planned.drive.file is not None and not planned.drive.readonly:
            return f"drive {planned.id!r} writes to {planned.drive.file}, which no template may do"
    for share in spec.shares:
        if share.method == "virtiofs":
            return f"share {share.guest!r} is through virtiofs, whose daemon would not see a clone's memory"
    return _unreadable(spec)


def _unreadable(spec: VMSpec) -> str | None:
    if spec.vsock:
        return "vsock=True: the state of vsock is in the host's kernel and cannot be saved"
    unsaved = why_unsaved(spec)
    if unsaved is not None:
        return f"devices: {unsaved}"
    for keyword, text in _texts(spec):
        if "/" in text:
            return f"{keyword}: {text!r} names a file, which nobody watches for changes"
    return None


def why_unsaved(spec: VMSpec) -> str | None:
    """Return why a device cannot be part of a saved machine, None if nothing is known against any."""
    for device in spec.devices:
        driver = driver_of(device, machine_kind(spec.machine))
        if driver.startswith(_OUTSIDE):
            return f"the state of {driver!r} is outside QEMU and cannot be saved"
        if driver.startswith(_FORGOTTEN):
            return f"QEMU does not save the state of {driver!r}"
    return None


def _texts(spec: VMSpec) -> Iterator[tuple[str, str]]:
    """Return the texts that QEMU reads and we do not, each with its keyword."""
    for device in spec.devices:
        if isinstance(device, str):
            yield "devices", device
        else:
            yield from (("devices", str(value)) for value in device.properties.values())
    for given in spec.properties.values():
        yield from (("properties", str(value)) for value in given.values())
    for keyword in ("machine", "boot", "cpu"):
        yield keyword, getattr(spec, keyword) or ""
    for keyword, several in (("nics", spec.nics or ()), ("drives", spec.drives)):
        for each in several:
            for value in each.properties.values():
                yield keyword, str(value)


def why_rather_not(spec: VMSpec, image: Image | None) -> str | None:
    """Return why a machine is booted unless the test asks for a clone, None if it is cloned."""
    if image is None:
        return "image=None: whatever is tested there, its boot is likely to be part of it"
    if spec.initrd is not None:
        return "initrd= replaces the image's: nobody knows what it would have to be told as a clone"
    if _returns_memory(spec):
        return f"{REPORTING}: a clone maps a file that others map, too, and gives nothing of it back to the host"
    if not image.shell and not image.root and not image.resume:
        return (
            f"image {image.label!r} has no way in as root that is known (ssh_user= and sudo=, agent=), nor resume "
            "commands: a clone's clock and random numbers could not be set right"
        )
    return None


def _returns_memory(spec: VMSpec) -> bool:
    """Return whether the guest is to tell the host which of its memory is free."""
    given = [device.properties for device in spec.devices if isinstance(device, VirtioBalloon)]
    return any(properties.get(REPORTING) in (True, "on") for properties in (*given, *spec.properties.values()))


def why_rare(cold: list[PlannedDrive]) -> str | None:
    """Return why a template may be of no use to a second machine, None if that is not to be expected."""
    for planned in cold:
        if planned.drive.file is not None and planned.id not in IMAGE_DISKS:
            return (
                f"drive {planned.id!r} is a file, {planned.drive.file}, that a template would be for; "
                "one is made when it is asked for again"
            )
    return None
