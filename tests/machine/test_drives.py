"""Drives on every interface, as the guest sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, DriveInUse, FromFixture, SpecError, VMFactory

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "given, with a comma.raw"
    path.write_bytes(b"given".ljust(4 * MIB, b"\0"))
    return path


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    path = tmp_path / "a.iso"
    path.write_bytes(b"iso".ljust(64 * 1024, b"\0"))
    return path


@pytest.mark.vm(
    drives=[
        Drive(size="8M", serial="scratch"),
        Drive(size="9M", format="qcow2", interface="scsi", serial="on-scsi"),
        Drive(size="10M", interface="nvme", serial="on-nvme", cache="unsafe"),
        Drive(size="11M", interface="usb"),
        Drive(size="12M", interface="ide", serial="on-ide", index=3, cache="writethrough"),
        Drive(size="1440k", interface="floppy"),
        Drive(FromFixture("disk"), format="raw", readonly=True, serial="read-only"),
        Drive(FromFixture("disk"), interface="ide", readonly=True),
    ],
    cdrom=FromFixture("iso"),
)
def test_every_interface(vm: VM) -> None:
    sizes = vm.run("for size in /sys/block/*/size; do echo $(($(cat $size) / 2048)) $size; done").stdout
    found = {line.split("/")[3]: int(line.split()[0]) for line in sizes.splitlines()}
    by_size = {size: name for name, size in found.items() if not name.startswith(("loop", "ram"))}
    assert by_size[8].startswith("vd")
    assert by_size[10].startswith("nvme")
    assert {by_size[size][:2] for size in (9, 11, 12)} == {"sd"}
    assert vm.run(f"cat /sys/block/{by_size[8]}/serial").stdout == "scratch"
    assert vm.run(["cat", f"/sys/block/{by_size[8]}/ro"]).stdout == "0\n"
    assert vm.run("head -c 3 /dev/sr0").stdout == "iso"
    assert "fd0" in found
    read_only = next(name for name in found if name.startswith("vd") and name != by_size[8])
    assert vm.run(f"cat /sys/block/{read_only}/ro; head -c 5 /dev/{read_only}").stdout == "1\ngiven"


@pytest.mark.vm(machine="pc", drives=[Drive(size="12M", interface="ide"), Drive(size="1440k", interface="floppy")])
def test_on_pc(vm: VM) -> None:
    assert vm.run("cat /sys/block/sda/size").stdout == f"{12 * 2048}\n"
    assert vm.run("ls -d /sys/block/fd0").stdout == "/sys/block/fd0\n"


def test_a_given_file_is_never_written(vm_factory: VMFactory, disk: Path) -> None:
    before = disk.read_bytes()
    vm = vm_factory(drives=[Drive(disk)])
    vm.run("printf changed | dd of=/dev/vda conv=notrunc && sync")
    assert vm.run("head -c 7 /dev/vda").stdout == "changed"
    vm.power_cut()
    vm.start()  # the same disks
    assert vm.run("head -c 7 /dev/vda").stdout == "changed"
    vm.close()
    assert disk.read_bytes() == before


def test_snapshot_false_writes_and_locks(vm_factory: VMFactory, disk: Path) -> None:
    vm = vm_factory(drives=[Drive(disk, snapshot=False)])
    with pytest.raises(DriveInUse, match=r"a drive is open in another machine .*given, with a comma\.raw") as refusal:
        vm_factory("second", drives=[Drive(disk, snapshot=False)], image=None)
    assert refusal.value.returncode == 1
    vm.run("printf changed | dd of=/dev/vda conv=notrunc && sync")
    vm.close()
    assert disk.read_bytes().startswith(b"changed")


def test_missing_file(vm_factory: VMFactory, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^Drive\(file='.*/nowhere\.raw'\): there is no such file$"):
        vm_factory(drives=[Drive(tmp_path / "nowhere.raw")])


def test_wrong_format_is_the_declarations_fault(vm_factory: VMFactory, disk: Path) -> None:
    with pytest.raises(SpecError, match=r"^Drive\(.*format='qcow2'\): qemu-img refuses: .*not in qcow2 format"):
        vm_factory(drives=[Drive(disk, format="qcow2")])


def test_places_that_a_machine_has_not(vm_factory: VMFactory) -> None:
    with pytest.raises(SpecError, match=r"'disk0' is on ide, which a microvm does not have; use virtio"):
        vm_factory(machine="microvm", drives=[Drive(size="1M", interface="ide")])
    with pytest.raises(SpecError, match=r"'disk4' is number 4 on ide, which has places 0 to 3 on machine 'pc'"):
        vm_factory(machine="pc", drives=[Drive(size="1M", interface="ide")] * 5)
