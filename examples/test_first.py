"""The common case: a marker says what the test needs."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive


@pytest.mark.vm(smp=2, drives=[Drive(size="64M", serial="scratch")])
def test_scratch_disk(vm: VM) -> None:
    assert vm.run("nproc").stdout == "2\n"
    vm.run("mke2fs /dev/vda")
    vm.run("mount -t ext2 /dev/vda /mnt")
