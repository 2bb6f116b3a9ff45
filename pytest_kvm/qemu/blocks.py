"""The part of the command line that is about drives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

from pytest_kvm.qemu.devices import parts, transport_settings, virtio_driver
from pytest_kvm.qemu.plan import DriveFile, Plan, PlannedDevice, PlannedDrive, machine_kind, plan_devices
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.devices.base import Device
from pytest_kvm.spec.devices.virtio import VirtioSCSI

# cache= of QEMU's -drive as what -blockdev and the device take (qemu(1), table under -drive cache=).
_DIRECT = {"none": True, "directsync": True, "writeback": False, "writethrough": False, "unsafe": False}
# The adapter of SCSI drives where the test declares none.
SCSI = "scsi0"
# The controller of USB drives.
USB = "usb0"
USB_PORTS = 15  # the most that xHCI has; QEMU's default is 4
_WRITE_CACHE = {"none": True, "directsync": False, "writeback": True, "writethrough": False, "unsafe": True}


def drive_arguments(plan: Plan) -> Iterator[str]:
    """Yield the options for all drives, their controllers first."""
    kind = machine_kind(plan.spec.machine)
    interfaces = {planned.drive.interface for planned, _ in plan.drives}
    adapters = [each for each in (*plan_devices(plan.spec), *plan.plugged) if is_adapter(each)]
    if "scsi" in interfaces and not any(isinstance(each.device, VirtioSCSI) for each in adapters):
        adapters.append(PlannedDevice(SCSI, VirtioSCSI()))
    if "usb" in interfaces and not any(each.id == USB for each in adapters):
        adapters.append(PlannedDevice(USB, Device("qemu-xhci", properties={"p2": USB_PORTS, "p3": USB_PORTS})))
    for adapter in adapters:
        for part in parts(adapter, kind):
            yield from part.arguments
    hosted = next((each.id for each in adapters if isinstance(each.device, VirtioSCSI)), SCSI)
    if "floppy" in interfaces and kind == "q35":
        yield from ("-device", option("isa-fdc", {"id": "fdc0"}))
    for planned, file in plan.drives:
        if planned.ejected:
            pass
        elif file.temporary:
            yield from ("-drive", _temporary(planned, file))
        else:
            yield from ("-blockdev", blockdev_text(node(planned, file)))
        driver, settings = device(planned, kind, scsi=hosted)
        yield from ("-device", option(driver, settings))


def is_adapter(planned: PlannedDevice) -> bool:
    """Return whether drives hang on a device: it comes before them on the command line."""
    return isinstance(planned.device, VirtioSCSI) or planned.id == USB


def node(planned: PlannedDrive, file: DriveFile) -> dict[str, object]:
    """Return the drive's block node, as ``-blockdev`` and QMP's ``blockdev-add`` take it."""
    cache = planned.drive.cache
    made: dict[str, object] = {
        "node-name": planned.id,
        "driver": file.format,
        "read-only": file.read_only,
        "file": {"driver": "file", "filename": os.fspath(file.path)},
    }
    made |= {key: value for key, value in _unmapping(planned).items() if value is not None}
    if cache is not None:
        settings = {"direct": _DIRECT[cache], "no-flush": cache == "unsafe"}
        made["cache"] = settings
        made["file"] = {"driver": "file", "filename": os.fspath(file.path), "cache": settings}
    return made


def _temporary(planned: PlannedDrive, file: DriveFile) -> str:
    """Return the text of ``-drive``: only that has ``snapshot=on``."""
    settings: dict[str, object] = {"id": planned.id, "format": file.format, "cache": planned.drive.cache}
    settings |= _unmapping(planned)
    if file.size is not None:
        settings |= {"file.driver": "null-co", "file.size": file.size, "file.read-zeroes": True}
    else:
        settings |= {"file.driver": "file", "file.filename": os.fspath(file.path)}
    settings["readonly" if file.read_only else "snapshot"] = True
    return option("if=none", settings)


def _unmapping(planned: PlannedDrive) -> dict[str, object]:
    return {"discard": planned.drive.discard, "detect-zeroes": planned.drive.detect_zeroes}


def sayable(path: str | os.PathLike[str]) -> bool:
    """Return whether JSON can have a file's name in it: QEMU takes no bytes in it that are not UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def blockdev_text(made: dict[str, object]) -> str:
    """Return a node as ``-blockdev`` takes it: JSON, or keys and values where JSON cannot have the file's name."""
    file = made["file"]
    if not isinstance(file, dict) or sayable(file["filename"]):
        return json.dumps(made)
    return option(str(made["driver"]), _flat({key: value for key, value in made.items() if key != "driver"}))


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def device(planned: PlannedDrive, kind: str, *, scsi: str = SCSI) -> tuple[str, dict[str, object]]:
    """Return the drive's device: QEMU's driver and its properties (None: left out); ``scsi`` is the SCSI adapter."""
    drive = planned.drive
    medium = None if planned.ejected else planned.id
    settings: dict[str, object] = {"id": planned.id, "drive": medium, **_place(planned, kind, scsi)}
    settings |= transport_settings(drive.transport)
    settings["serial"] = drive.serial
    settings["bootindex"] = drive.bootindex
    if drive.cache is not None and drive.media == "disk" and drive.interface != "floppy":
        settings["write-cache"] = _WRITE_CACHE[drive.cache]
    if drive.interface == "nvme" and drive.serial is None:
        settings["serial"] = planned.id  # NVMe does not go without
    return _driver(planned, kind), {**settings, **drive.properties}


def _driver(planned: PlannedDrive, kind: str) -> str:
    drive = planned.drive
    if drive.interface == "virtio":
        return virtio_driver("virtio-blk", drive.transport, kind, repr(drive))
    suffix = "cd" if drive.media == "cdrom" else "hd"
    return {
        "ide": f"ide-{suffix}",
        "scsi": f"scsi-{suffix}",
        "nvme": "nvme",
        # usb-storage presents whatever it is given as a disk; usb-bot lets a CD-ROM be one.
        "usb": "usb-storage",
        "floppy": "floppy",
    }[drive.interface]


def _place(planned: PlannedDrive, kind: str, scsi: str) -> dict[str, object]:
    unit = planned.unit
    match planned.drive.interface:
        case "virtio" if planned.port:
            return {"bus": planned.port}
        case "ide":
            return {"bus": f"ide.{unit // 2}", "unit": unit % 2} if kind == "pc" else {"bus": f"ide.{unit}"}
        case "scsi":
            return {"bus": f"{scsi}.0", "scsi-id": unit}
        case "usb":
            return {"bus": f"{USB}.0", "port": unit + 1, "removable": planned.drive.media == "cdrom" or None}
        case "floppy":
            return {"unit": unit}
        case _:
            return {}
