"""Disks that are slow, and disks that grow, because a test wants it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, MachineError, SpecError
from pytest_kvm.machine.devices import resizing


def seconds(vm: VM, id: str, megabytes: int) -> float:
    """How long it takes to read so much; what was read before is not remembered."""
    node = vm.disk(id).node
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    return vm.run(f"dd if={node} of=/dev/null bs=1M count={megabytes}").seconds


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_throttled(vm: VM) -> None:
    disk = vm.disk("disk0")
    write = "for n in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc,fsync; done"
    disk.throttle(iops_wr=10)
    assert vm.run(write).seconds > 0.6
    assert seconds(vm, "disk0", 3) < 0.6
    disk.throttle(iops=1000, bps="100M")
    assert vm.run(write).seconds < 0.6
    disk.throttle(iops=1)
    disk.throttle(None)
    assert vm.run(write).seconds < 0.6
    with pytest.raises(SpecError, match=r"disk\.throttle\(iops=…, iops_rd=…\): it is limited in all, or each way"):
        disk.throttle(10, iops_rd=5)
    with pytest.raises(SpecError, match=r"disk\.throttle\(iops=0\): expected a number of requests in a second, 1 at"):
        disk.throttle(0)
    with pytest.raises(SpecError, match=r"disk\.throttle\(bps='fast'\): expected a size"):
        disk.throttle(bps="fast")


@pytest.mark.vm(drives=[Drive(size="8M"), Drive(FromFixture("given"), readonly=True)], cdrom=FromFixture("given"))
def test_resized(vm: VM, given: Path) -> None:
    disk = vm.disk("disk0")
    vm.run("mke2fs -q /dev/vda && mount -t ext4 /dev/vda /mnt && printf kept >/mnt/file && sync")
    disk.resize("16M")
    assert vm.run("cat /sys/block/vda/size").stdout == f"{16 << 11}\n"
    with pytest.raises(SpecError, match=rf"'disk0' has {16 << 20} bytes, and would lose all beyond {8 << 20}; say shr"):
        disk.resize("8M")
    disk.resize(8 << 20, shrink=True)
    assert vm.run("cat /sys/block/vda/size /mnt/file").stdout == f"{8 << 11}\nkept"
    with pytest.raises(SpecError, match="a disk has whole sectors of 512 bytes, got 1000"):
        disk.resize(1000)
    with pytest.raises(SpecError, match="drive 'disk1' cannot be resized: it is read-only"):
        vm.disk("disk1").resize("2M")
    with pytest.raises(SpecError, match="drive 'cdrom0' cannot be resized: a CD-ROM is as large as its medium"):
        vm.disk("cdrom0").resize("2M")
    vm.run("umount /mnt")
    before = given.stat().st_size
    state = vm.snapshot()
    disk.resize("12M")
    vm.restore(state)
    assert vm.run("cat /sys/block/vda/size").stdout == f"{8 << 11}\n"
    vm.disk("disk0").resize("10M")
    assert given.stat().st_size == before


@pytest.mark.vm(drives=[Drive(size="8M", interface="usb")])
def test_a_guest_that_does_not_look(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_PATIENCE", 1.0)
    disk = vm.disk("disk0")
    assert disk.node == "/dev/sda"  # USB takes its time
    vm.run("mount -o bind /dev/null /sys/block/sda/device/rescan")
    with pytest.raises(
        MachineError, match=rf"'disk0' has {9 << 20} bytes now, but the guest does not see it .*/sda has"
    ):
        disk.resize("9M")
    disk.resize("10M", wait=False)
