"""What a test does to disks, on every interface: the guest sees it with each of its drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, SpecError
from tests.machine.devices.files import allocated

INTERFACES = ("virtio", "scsi", "usb", "ide", "nvme")
MIB = 1 << 20
SERIALS = {name: f"a-{name}" for name in INTERFACES}
SERIAL_FILES = {
    "virtio": "serial",
    "nvme": "device/serial",
    "scsi": "device/vpd_pg80",
    "ide": "device/vpd_pg80",
    "usb": "device/../../../../serial",  # that of the USB device
}


def seconds(vm: VM, node: str, megabytes: int) -> float:
    """How long it takes to read so much; what was read before is not remembered."""
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    return vm.run(f"dd if={node} of=/dev/null bs=1M count={megabytes}").seconds


@pytest.mark.vm(
    drives=[Drive(size="8M", id=name, interface=name, serial=SERIALS[name], discard="unmap") for name in INTERFACES]
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
        vm.run(f"yes | head -c {4 * MIB} | dd of={node} bs=1M conv=notrunc,fsync")
        assert allocated(vm, name) >= 4 * MIB
        assert SERIALS[name] in vm.run(f"cat /sys/block/{node[5:]}/{SERIAL_FILES[name]}").stdout
        assert vm.run(f"cat /sys/block/{node[5:]}/queue/write_cache").stdout == "write back\n"
        if name == "nvme":
            with pytest.raises(SpecError, match="can have no volatile cache: QEMU's NVMe disks take a write with FUA"):
                disk.lose_unflushed()
        if name != "usb":  # usb-storage knows no command for it
            vm.run(f"blkdiscard {node}")
            assert allocated(vm, name) < MIB


# An IDE disk has no write protection.
READ_ONLY = tuple(name for name in INTERFACES if name != "ide")


@pytest.mark.vm(
    drives=[
        *(Drive(FromFixture("given"), id=name, interface=name, readonly=True) for name in READ_ONLY),
        Drive(FromFixture("given"), id="cdrom", media="cdrom"),
    ]
)
def test_read_only(vm: VM, given: Path) -> None:
    before = given.read_bytes()
    for name in (*READ_ONLY, "cdrom"):
        node = vm.disk(name).node
        # Linux learns of it from all but NVMe, where QEMU refuses each write.
        assert vm.run(f"cat /sys/block/{node[5:]}/ro").stdout == ("0\n" if name == "nvme" else "1\n")
        vm.run(f"blockdev --setrw {node}", check=False)
        vm.run(f"dd if=/dev/zero of={node} bs=4k count=1 conv=notrunc,fsync", check={1})
        vm.run("echo 3 >/proc/sys/vm/drop_caches")
        assert vm.run(f"head -c 5 {node}").stdout == "given"
    assert given.read_bytes() == before
