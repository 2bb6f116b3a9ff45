"""Files with names that nobody would give are opened, by QEMU itself and by the programs around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, VMFactory
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.images.builtin.built import built_guests
from tests.hostile import FILE_NAMES

# Two at each place where a name is passed on in another way.
DIRECT, OVERLAID, CDROM, WRITTEN = FILE_NAMES[0::4], FILE_NAMES[1::4], FILE_NAMES[2::4], FILE_NAMES[3::4]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose own name is no better."""
    made = tmp_path / "a,b =\udcff\n"
    made.mkdir()
    yield made
    shutil.rmtree(os.fsencode(made))


def disk(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(f"{FILE_NAMES.index(name):04}".encode().ljust(4096, b"\0"))
    return path


def test_drives(folder: Path, vm_factory: VMFactory) -> None:
    drives = [
        *(Drive(disk(folder, name), interface="scsi", format="raw", readonly=True) for name in DIRECT),
        *(Drive(disk(folder, name), interface="scsi", format="raw") for name in OVERLAID),
        *(Drive(disk(folder, name), interface="scsi", media="cdrom", format="raw") for name in CDROM),
        *(Drive(disk(folder, name), interface="scsi", format="raw", snapshot=False) for name in WRITTEN),
    ]
    vm = vm_factory(drives=drives, start="boot")
    found = vm.run(
        "for x in /sys/class/scsi_device/*; do d=$(ls $x/device/block); head -c 4 /dev/$d; echo; done"
    ).stdout
    assert sorted(map(int, found.split())) == list(range(len(FILE_NAMES)))


@pytest.mark.parametrize(
    ("name", "start"), [("a,b\n=", "clone"), pytest.param("\udcff,x", "boot", marks=pytest.mark.slow)]
)
def test_virtio_disks(folder: Path, vm_factory: VMFactory, name: str, start: str) -> None:
    """One is plugged into a clone by QMP, which has no bytes that are not UTF-8."""
    raw = name.encode(errors="surrogateescape")
    (folder / name).write_bytes(raw.ljust(1024, b"\0"))
    drives = [Drive(folder / name, format="raw", readonly=True), Drive(folder / name, format="raw")]
    vm = vm_factory(drives=drives, start=start)
    assert vm.run("head -c 3 /dev/vda; head -c 3 /dev/vdb", text=False).stdout == 2 * raw[:3]
    assert vm.started is not None
    assert vm.started.kind == start


def test_qcow2(folder: Path, vm_factory: VMFactory) -> None:
    from tests.images.disks import make_qcow2

    disk_ = make_qcow2(folder / "disk,\udcfe", size="2M", data=1)
    vm = vm_factory(drives=[Drive(disk_), Drive(disk_, readonly=True)], start="boot")
    assert vm.run("head -c 2 /dev/vda; head -c 2 /dev/vdb", text=False).stdout == b"\7\7\7\7"


@pytest.mark.parametrize("name", ["k,e=r n\nel", pytest.param("-kernel\udcff", marks=pytest.mark.slow)])
def test_kernel_and_initrd(folder: Path, vm_factory: VMFactory, vm: VM, name: str) -> None:
    guest = next(guest for guest in built_guests(cache_dir()) if guest.current)
    for file in ("vmlinuz", "initrd.img"):
        shutil.copyfile(guest.path / file, folder / f"{file}{name}")
    made = vm_factory(
        kernel=folder / f"vmlinuz{name}", initrd=folder / f"initrd.img{name}", append="x=a,b,,c y='z \"q", cdrom=None
    )
    assert made.run("cat /proc/cmdline").stdout.endswith("x=a,b,,c y='z \"q\n")
    assert made.started is not None
    assert made.started.kind == "boot"
    assert str(folder / f"vmlinuz{name}") in made.command
