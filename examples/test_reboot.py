"""What survives a reboot, and a power cut."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive


@pytest.mark.vm(drives=[Drive(size="16M")])
def test_disk_survives(vm: VM) -> None:
    vm.run("mke2fs -q /dev/vda && mkdir -p /mnt && mount -t ext2 /dev/vda /mnt && echo kept >/mnt/note && sync")
    vm.power_cut()
    vm.start()
    vm.run("mkdir -p /mnt && mount -t ext2 /dev/vda /mnt")
    assert vm.run("cat /mnt/note").stdout == "kept\n"
