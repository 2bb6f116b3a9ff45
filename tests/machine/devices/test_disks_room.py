"""What disks take of the host: through its page cache or past it, and freed again when the guest discards."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture
from tests.machine.devices.files import allocated, file_of

MIB = 1 << 20
# What the guest's kernel makes of it, and whether QEMU goes past the host's page cache (qemu(1), -drive cache=).
CACHES = {
    "none": ("write back", True),
    "writeback": ("write back", False),
    "unsafe": ("write back", False),
    "writethrough": ("write through", False),
    "directsync": ("write through", True),
}


def direct(vm: VM, path: Path) -> bool:
    """Whether QEMU has the file open with O_DIRECT."""
    folder = Path(f"/proc/{vm.pid}")
    number = next(each.name for each in (folder / "fd").iterdir() if os.path.realpath(each) == str(path))
    flags = next(line for line in (folder / "fdinfo" / number).read_text().splitlines() if line.startswith("flags"))
    return bool(int(flags.split()[1], 8) & os.O_DIRECT)


@pytest.mark.vm(drives=[Drive(size="8M", id=name, cache=name) for name in CACHES])
def test_cache_modes(vm: VM) -> None:
    for name, (cache, is_direct) in CACHES.items():
        node = vm.disk(name).node
        assert vm.run(f"cat /sys/block/{node[5:]}/queue/write_cache").stdout == f"{cache}\n"
        assert direct(vm, file_of(vm, name)[0].resolve()) is is_direct
        vm.run(f"echo written | dd of={node} conv=notrunc,fsync")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "full.raw"
    path.write_bytes(os.urandom(8 * MIB))
    return path


@pytest.mark.vm(
    drives=[
        Drive(size="8M", discard="unmap"),
        Drive(size="8M"),
        Drive(size="8M", discard="unmap", detect_zeroes="unmap"),
        Drive(FromFixture("full"), discard="unmap"),
    ]
)
def test_discard(vm: VM, full: Path) -> None:
    freed, kept, zeroes, overlay = (f"disk{number}" for number in range(4))
    given = full.read_bytes()
    for name in (freed, kept, zeroes, overlay):
        vm.run(f"yes | head -c {4 * MIB} | dd of={vm.disk(name).node} bs=1M conv=notrunc,fsync")
        assert allocated(vm, name) >= 4 * MIB
    for name in (freed, kept, overlay):
        vm.run(f"blkdiscard {vm.disk(name).node}")
    vm.run(f"dd if=/dev/zero of={vm.disk(zeroes).node} bs=1M count=4 conv=notrunc,fsync")
    assert allocated(vm, freed) < MIB
    assert allocated(vm, kept) >= 4 * MIB
    assert allocated(vm, zeroes) < MIB
    assert allocated(vm, overlay) < MIB
    assert vm.run(f"head -c 3 {vm.disk(overlay).node} | xxd -p").stdout == "000000\n"
    vm.run("mke2fs -q /dev/vda && mount -t ext4 /dev/vda /mnt")
    vm.run(f"yes | head -c {4 * MIB} >/mnt/file && sync")
    before = allocated(vm, freed)
    vm.run("rm /mnt/file && sync && fstrim /mnt")
    assert allocated(vm, freed) < before - 3 * MIB
    assert full.read_bytes() == given


# What Linux makes of a hole that is punched in a block device: zeroes are written, and may be unmapped (block/fops.c).
ZERO = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDWR);
    return fd < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, strtol(argv[2], 0, 0)) != 0;
}
"""


@pytest.mark.vm(drives=[Drive(size="8M", discard="unmap"), Drive(size="8M")])
def test_write_zeroes(vm: VM, tmp_path: Path) -> None:
    """Where discards are passed on, the host's file has a hole then; elsewhere it has zeroes."""
    (tmp_path / "zero.c").write_text(ZERO)
    subprocess.run(["gcc", "-static", "-o", tmp_path / "zero", tmp_path / "zero.c"], check=True)
    for name, hole in (("disk0", True), ("disk1", False)):
        node = vm.disk(name).node
        vm.run(f"yes | head -c {4 * MIB} | dd of={node} bs=1M conv=notrunc,fsync")
        assert allocated(vm, name) >= 4 * MIB
        vm.run_local(tmp_path / "zero", node, str(4 * MIB))
        assert vm.run(f"head -c {4 * MIB} {node} | tr -d '\\0' | wc -c").stdout == "0\n"
        assert (allocated(vm, name) < MIB) == hole
