"""The command line of drives."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.qemu.plan import DriveFile, plan_drives
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.fields import VMFields
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.plans import plan, tail


def drive_words(drive: Drive, file: DriveFile, **spec: object) -> list[str]:
    fields: VMFields = {"drives": [drive], "nics": [], **spec}  # type: ignore[typeddict-item]
    asked = VMSpec(**fields)
    return tail(plan(asked, drives=[(planned, file) for planned in plan_drives(asked)]))


RAW = DriveFile(Path("/d/x.raw"), "raw")
ISO = DriveFile(Path("/d/x.iso"), "raw", read_only=True)


@pytest.mark.parametrize(
    ("drive", "file", "machine", "expected"),
    [
        (Drive(size="1M"), RAW, None, ["virtio-blk-pci,id=disk0,drive=disk0"]),
        (Drive(size="1M", interface="ide"), RAW, "q35", ["ide-hd,id=disk0,drive=disk0,bus=ide.0"]),
        (Drive(size="1M", interface="ide", index=3), RAW, "pc", ["ide-hd,id=disk0,drive=disk0,bus=ide.1,unit=1"]),
        (Drive("x", media="cdrom"), ISO, "q35", ["ide-cd,id=cdrom0,drive=cdrom0,bus=ide.0"]),
        (
            Drive(size="1M", interface="scsi", index=2, serial="a,b"),
            RAW,
            None,
            ["virtio-scsi-pci,id=scsi0", "scsi-hd,id=disk0,drive=disk0,bus=scsi0.0,scsi-id=2,serial=a,,b"],
        ),
        (
            Drive("x", media="cdrom", interface="scsi"),
            ISO,
            None,
            ["virtio-scsi-pci,id=scsi0", "scsi-cd,id=cdrom0,drive=cdrom0,bus=scsi0.0,scsi-id=0"],
        ),
        (Drive(size="1M", interface="nvme"), RAW, None, ["nvme,id=disk0,drive=disk0,serial=disk0"]),
        (Drive(size="1M", interface="nvme", serial="s"), RAW, None, ["nvme,id=disk0,drive=disk0,serial=s"]),
        (
            Drive(size="1M", interface="usb"),
            RAW,
            None,
            ["qemu-xhci,id=usb0,p2=15,p3=15", "usb-storage,id=disk0,drive=disk0,bus=usb0.0,port=1"],
        ),
        (
            Drive("x", interface="usb", media="cdrom", index=1),
            ISO,
            None,
            ["qemu-xhci,id=usb0,p2=15,p3=15", "usb-storage,id=cdrom0,drive=cdrom0,bus=usb0.0,port=2,removable=on"],
        ),
        (
            Drive(size="1440K", interface="floppy"),
            RAW,
            "q35",
            ["isa-fdc,id=fdc0", "floppy,id=disk0,drive=disk0,unit=0"],
        ),
        (Drive(size="1440K", interface="floppy", index=1), RAW, "pc", ["floppy,id=disk0,drive=disk0,unit=1"]),
        (
            Drive(size="1M", bootindex=3, cache="unsafe", properties={"logical_block_size": 4096}),
            RAW,
            None,
            ["virtio-blk-pci,id=disk0,drive=disk0,bootindex=3,write-cache=on,logical_block_size=4096"],
        ),
    ],
)
def test_devices_of_drives(drive: Drive, file: DriveFile, machine: str | None, expected: list[str]) -> None:
    command = drive_words(drive, file, machine=machine)
    assert [value for name, value in itertools.pairwise(command) if name == "-device"] == expected


def test_a_node_takes_any_path_as_it_is() -> None:
    command = drive_words(Drive("x", media="cdrom"), DriveFile(Path('/d/a,b "c",snapshot=on.qcow2'), "qcow2", True))
    assert command[1] == (
        '{"node-name": "cdrom0", "driver": "qcow2", "read-only": true, '
        '"file": {"driver": "file", "filename": "/d/a,b \\"c\\",snapshot=on.qcow2"}}'
    )


@pytest.mark.parametrize(
    ("cache", "settings", "write_cache"),
    [
        ("none", '{"direct": true, "no-flush": false}', "on"),
        ("writeback", '{"direct": false, "no-flush": false}', "on"),
        ("writethrough", '{"direct": false, "no-flush": false}', "off"),
        ("directsync", '{"direct": true, "no-flush": false}', "off"),
        ("unsafe", '{"direct": false, "no-flush": true}', "on"),
    ],
)
def test_cache_modes(cache: str, settings: str, write_cache: str) -> None:
    command = drive_words(Drive(size="1M", cache=cache), RAW)
    assert command[1] == (
        '{"node-name": "disk0", "driver": "raw", "read-only": false, '
        f'"file": {{"driver": "file", "filename": "/d/x.raw", "cache": {settings}}}, "cache": {settings}}}'
    )
    assert command[3].endswith(f",write-cache={write_cache}")


def test_what_is_freed() -> None:
    drive = Drive(size="1M", discard="unmap", detect_zeroes="on")
    assert json.loads(drive_words(drive, RAW)[1]) == {
        "node-name": "disk0",
        "driver": "raw",
        "read-only": False,
        "file": {"driver": "file", "filename": "/d/x.raw"},
        "discard": "unmap",
        "detect-zeroes": "on",
    }
    temporary = drive_words(drive, replace(RAW, temporary=True))[1]
    assert temporary.endswith(",snapshot=on")
    assert "discard=unmap,detect-zeroes=on" in temporary


def test_an_empty_drive_has_no_node() -> None:
    spec = VMSpec(drives=[Drive("x", media="cdrom"), Drive(size="1440K", interface="floppy")], nics=[])
    drives = [(replace(each, ejected=True), RAW) for each in plan_drives(spec)]
    command = tail(plan(spec, drives=drives))
    assert command == [
        "-device",
        "isa-fdc,id=fdc0",
        "-device",
        "ide-cd,id=cdrom0,bus=ide.0",
        "-device",
        "floppy,id=disk0,unit=0",
    ]


def test_one_controller_for_all_drives_of_an_interface() -> None:
    drives = [Drive(size="1M", interface=interface) for interface in ("usb", "scsi", "usb", "scsi")]
    spec = VMSpec(drives=drives, nics=[])
    command = tail(plan(spec, drives=[(each, RAW) for each in plan_drives(spec)]))
    devices = [word.partition(",")[0] for word in command if word.startswith(("virtio-scsi", "qemu-xhci"))]
    assert devices == ["virtio-scsi-pci", "qemu-xhci"]
