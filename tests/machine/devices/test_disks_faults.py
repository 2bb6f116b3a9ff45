"""Disks that fail because a test wants it: what the guest's programs and its kernel make of it."""

from __future__ import annotations

import errno

import pytest

from pytest_kvm import VM, Drive, DriveFailed, MachineError, NotSeen, SpecError


def reads(vm: VM, sector: int) -> bool:
    """Whether the page of a sector can be read, in one request: what fails as readahead is tried again."""
    read = f"dd if=/dev/vda of=/dev/null bs=512 skip={sector} count=1"
    command = f"blockdev --setra 0 /dev/vda && echo 3 >/proc/sys/vm/drop_caches && {read}"
    return vm.run(command, check=False).returncode == 0


def writes(vm: VM) -> bool:
    return vm.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc,fsync", check=False).returncode == 0


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_where_when_and_how_often(vm: VM) -> None:
    disk = vm.disk("disk0")
    with disk.fail("read", sectors=range(64, 72)):
        assert [reads(vm, sector) for sector in (0, 63, 64, 71, 72)] == [True, True, False, False, True]
        assert writes(vm)
    assert reads(vm, 64)
    assert "I/O error, dev vda, sector 64 op 0x0:(READ)" in vm.run("dmesg").stdout
    with disk.fail("write"):
        assert not writes(vm)
        assert reads(vm, 0)
    with disk.fail("flush"):
        vm.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc")
        assert not writes(vm)
    with disk.fail():
        assert not reads(vm, 0)
        assert not writes(vm)
    with disk.fail("read", "write", once=True):
        assert [writes(vm), writes(vm)] == [False, True]
        assert reads(vm, 0), "the kernel has tried again"
    told = [event["data"]["operation"] for event in vm.qmp.events if event["event"] == "BLOCK_IO_ERROR"]
    assert told[-2:] == ["write", "read"]


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_several_at_once_in_any_order(vm: VM) -> None:
    disk = vm.disk("disk0")
    faults = [disk.fail("read", sectors=sector) for sector in (0, 64, 128)]
    once = disk.fail("write", once=True)
    assert [writes(vm), writes(vm)] == [False, True]
    assert [reads(vm, sector) for sector in (0, 64, 128, 256)] == [False] * 3 + [True]
    faults[1].remove()
    assert writes(vm), "what has failed once is not armed again"
    assert [reads(vm, sector) for sector in (0, 64, 128)] == [False, True, False]
    faults[0].remove()
    faults[0].remove()
    once.remove()
    assert [reads(vm, sector) for sector in (0, 64, 128)] == [True, True, False]
    disk.resize("12M")  # also what is put in between has to grow
    state = vm.snapshot()
    assert not reads(vm, 128)
    vm.restore(state)
    assert reads(vm, 128), "a fault is no part of a snapshot"
    faults[2].remove()
    assert reads(vm, (12 << 11) - 8)


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_until_qemu_ends(vm: VM) -> None:
    with vm.disk("disk0").fail("read"):
        assert not reads(vm, 0)
        vm.power_cut()
        vm.start()
        assert reads(vm, 0)


@pytest.mark.vm(drives=[Drive(size="8M"), Drive(size="8M", interface="scsi", properties={"werror": "report"})])
def test_no_space_stops_the_guest_or_is_reported(vm: VM) -> None:
    reported = vm.disk("disk1")
    with reported.fail("write", errno="ENOSPC"):
        vm.run(f"dd if=/dev/zero of={reported.node} bs=4k count=1 conv=fsync", check={1})
    assert "critical space allocation error, dev sda, sector 0" in vm.run("dmesg").stdout
    stopped = vm.disk("disk0")
    node = stopped.node
    with stopped.fail("write", errno=errno.ENOSPC), vm.expect_drive_failure("disk0") as expected:
        vm.run(f"dd if=/dev/zero of={node} bs=4k count=1 conv=fsync")
    assert isinstance(expected.findings[0].error(), DriveFailed)
    assert vm.qmp.execute("query-status")["status"] == "io-error"
    vm.resume()
    assert vm.run(f"dd if=/dev/zero of={node} bs=4k count=1 conv=fsync").returncode == 0
    with pytest.raises(NotSeen, match="a drive's failure was expected"), vm.expect_drive_failure(timeout=0.1):
        pass


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_what_cannot_be(vm: VM) -> None:
    disk = vm.disk("disk0")
    with pytest.raises(SpecError, match=r"disk\.fail\('reed'\): no such operation; did you mean 'read'\?"):
        disk.fail("reed")
    with pytest.raises(SpecError, match=r"disk\.fail\(errno='EOI'\): expected the name of an error, such as 'EIO'"):
        disk.fail(errno="EOI")
    with pytest.raises(SpecError, match=r"disk\.fail\(errno=0\): expected the name of an error"):
        disk.fail(errno=0)
    with pytest.raises(SpecError, match=r"sectors=range\(0, 2049\)\): 2049 sectors, the most is 2048"):
        disk.fail(sectors=range(2049))
    with pytest.raises(SpecError, match=r"sectors=-1\): that is no sector"):
        disk.fail(sectors=-1)
    with pytest.raises(SpecError, match="a flush is of the whole disk"):
        disk.fail("flush", sectors=1)
    with pytest.raises(SpecError, match="with once=True it is one sector"):
        disk.fail(sectors=range(8), once=True)
    with disk.fail("read", sectors=range(2048)):
        assert [reads(vm, 2047), reads(vm, 2048)] == [False, True]
    vm.power_cut()
    with pytest.raises(MachineError, match="VM 'vm' is off"):
        disk.fail("read")
