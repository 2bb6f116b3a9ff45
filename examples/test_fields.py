"""The marker says what the machine is made of; nearer markers win."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive, vm_parametrize

pytestmark = pytest.mark.vm(memory="192M")  # for all tests of this file


@pytest.mark.vm(smp=2, drives=[Drive(size="64M", serial="scratch")])
def test_shape(vm: VM) -> None:
    assert vm.run("nproc").stdout == "2\n"
    assert vm.run("cat /sys/block/vda/serial").stdout == "scratch"


@vm_parametrize("cache", ["none", "writeback"], lambda cache: {"drives": [Drive(size="8M", cache=cache)]})
def test_cache_modes(vm: VM) -> None:
    vm.run("dd if=/dev/zero of=/dev/vda bs=1M count=8 && sync")
