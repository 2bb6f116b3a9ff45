"""What is on a disk after the power was cut: all that was flushed, and of the rest what the host has."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive

WRITE = "yes {what} | head -c 4096 | dd of={node} bs=4096 seek={block} conv=notrunc{how} 2>/dev/null"


def write(vm: VM, what: str, block: int, *, flush: bool = False) -> None:
    """Write a block of the disk: it has left the guest, and is flushed or not."""
    node = vm.disk("disk0").node
    how = ",fsync" if flush else ""
    vm.run(WRITE.format(what=what, node=node, block=block, how=how))
    if not flush:  # sync(1) of a block device flushes; this only writes pages back
        vm.run(f"dd if={node} of=/dev/null bs=4096 skip={block} count=1 iflag=direct")


def block(vm: VM, number: int) -> str:
    node = vm.disk("disk0").node
    return vm.run(f"dd if={node} bs=4096 skip={number} count=1 2>/dev/null | head -c 1 | tr '\\0' 0").stdout


def cut(vm: VM) -> None:
    vm.power_cut()
    vm.start()


@pytest.mark.vm(drives=[Drive(size="8M", cache="none")])
def test_an_ordinary_disk_keeps_what_was_flushed(vm: VM) -> None:
    vm.run("yes A | head -c 4096 | dd of=/dev/vda conv=notrunc,fsync; yes B | head -c 4096 >/tmp/b")
    vm.run("echo 100000 >/proc/sys/vm/dirty_writeback_centisecs; exec 3<>/dev/vda; dd if=/tmp/b bs=4096 seek=1 >&3")
    cut(vm)
    assert block(vm, 0) == "A"
