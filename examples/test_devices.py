"""A virtio device and its driver: what they agree on, with and without some features, and how they come and go."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Drive, Nic


def test_what_was_negotiated(vm: VM) -> None:
    net = vm.virtio("net0")
    assert "VIRTIO_NET_F_CTRL_VQ" in net.negotiated
    assert net.negotiated <= net.offered
    assert net.config["mac"] == vm.nic("net0").mac


@pytest.mark.vm_features("net0", ["packed=on", "event_idx=off,indirect_desc=off"])
def test_traffic(vm: VM) -> None:
    vm.run("ping -c 1 -W 5 10.0.2.2")


def test_hotplug(vm: VM) -> None:
    disk, nic = vm.plug(Drive(size="16M")), vm.plug(Nic())
    vm.run(f"dd if=/dev/urandom of={disk.node} bs=1M count=16")
    assert nic.ifname == "eth1"
    vm.unplug(disk.id)
    vm.unplug(nic.id)
