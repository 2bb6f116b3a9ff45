"""A machine with NUMA nodes, as its guest sees them."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, NumaNode

NODES = [
    NumaNode(memory="160M", cpus=0, distances=[10, 21, 40]),
    NumaNode(memory="96M", cpus=1, distances=[22, 10, 41]),
    NumaNode(memory="64M", distances=[42, 43, 10]),
]
_EACH = "for each in /sys/devices/system/node/node*/{}; do sed '/Mem[^T]/d; s/.*MemTotal: *//; 1q' $each; done"


@pytest.mark.vm(numa=NODES, smp=2)
def test_what_the_guest_sees(vm: VM) -> None:
    assert vm.started is not None
    assert vm.started.kind == "clone"
    check(vm)
    # A socket each: Linux would complain of CPUs that share a cache over nodes.
    assert (vm.cpu.count, vm.cpu.sockets, vm.cpu.cores) == (2, 2, 1)


@pytest.mark.vm(numa=NODES, smp=2)
def test_memory_of_every_node_is_saved(vm: VM) -> None:
    vm.run("mkdir /bound && mount -t tmpfs -o size=220M,mpol=interleave none /bound")
    vm.run("dd if=/dev/urandom of=/bound/file bs=1M count=64")
    checksum = vm.run("md5sum /bound/file").stdout
    state = vm.snapshot()
    vm.run("rm /bound/file; dd if=/dev/zero of=/bound/file bs=1M count=100")
    vm.restore(state)
    assert vm.run("md5sum /bound/file").stdout == checksum
    check(vm)


def check(vm: VM) -> None:
    """The nodes are those that were declared."""
    assert vm.run(_EACH.format("cpulist")).stdout == "0\n1\n\n"
    assert vm.run(_EACH.format("distance")).stdout == "10 21 40\n22 10 41\n42 43 10\n"
    sizes = [int(line.split()[0]) >> 10 for line in vm.run(_EACH.format("meminfo")).stdout.splitlines()]
    # What the kernel keeps for itself is missing.
    for size, declared in zip(sizes, (160, 96, 64), strict=True):
        assert declared - 45 < size <= declared
