"""What a test does to disks, on every interface: the guest sees it with each of its drivers."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive, SpecError

INTERFACES = ("virtio", "scsi", "usb", "ide", "nvme")
MIB = 1 << 20


def seconds(vm: VM, node: str, megabytes: int) -> float:
    """How long it takes to read so much; what was read before is not remembered."""
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    return vm.run(f"dd if={node} of=/dev/null bs=1M count={megabytes}").seconds


@pytest.mark.vm(
    drives=[Drive(size="8M", id=name, interface=name, serial=f"a-{name}", discard="unmap") for name in INTERFACES]
)
def test_every_interface(vm: VM) -> None:
    for name in INTERFACES:
        disk = vm.disk(name)
        node = disk.node
        with disk.fail("read", "write"):
            read = f"dd if={node} of=/dev/null bs=4k count=1 skip=100"
            assert "Input/output error" in vm.run(read, check={1}).stderr
            vm.run(f"dd if=/dev/zero of={node} bs=4k count=1 conv=fsync", check={1})
        vm.run(read)
        # A tenth of a second's worth goes through at once (QEMU's util/throttle.c).
        with disk.throttle(bps_rd="4M"):
            assert seconds(vm, node, 3) > 0.4
        assert seconds(vm, node, 3) < 0.4
        if name in ("ide", "nvme"):
            with pytest.raises(SpecError, match=f"drive '{name}' cannot be resized: QEMU has no way to tell a guest"):
                disk.resize("12M")
        else:
            disk.resize("12M")
            assert vm.run(f"blockdev --getsize64 {node}").stdout == f"{12 * MIB}\n"
            vm.run(f"dd if=/dev/zero of={node} bs=1M seek=11 count=1 conv=notrunc,fsync")
