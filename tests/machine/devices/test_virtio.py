"""What virtio devices and their drivers agree on, as guest and QEMU tell it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_kvm import (
    VM,
    Device,
    Drive,
    NegotiationError,
    Nic,
    SpecError,
    VirtioBalloon,
    VirtioGPU,
    VirtioIOMMU,
    VirtioKeyboard,
    VirtioMem,
    VirtioPmem,
    VirtioSCSI,
    VMFactory,
)
from pytest_kvm.machine.devices import virtio
from pytest_kvm.qemu.virtio import look_in_qemu

RUNNING = {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"}
LEGACY_ONLY = {"VIRTIO_F_BAD_FEATURE", "VIRTIO_F_NOTIFY_ON_EMPTY", "VIRTIO_F_ANY_LAYOUT"}


@pytest.mark.vm(
    smp=2,
    memory="256M,maxmem=1G",
    drives=[
        Drive(size="8M", properties={"num-queues": 2, "queue-size": 64}),
        Drive(size="9M", transport="pci-legacy", readonly=False),
    ],
    devices=[
        VirtioSCSI(properties={"num_queues": 3}),
        VirtioBalloon(properties={"deflate-on-oom": True}),
        *(VirtioGPU(), VirtioKeyboard(), VirtioIOMMU(), VirtioMem(size="128M")),
    ],
    nics=[Nic(properties={"host_mtu": 1400})],
)
def test_many_devices(vm: VM) -> None:
    net = vm.virtio("net0")
    assert (net.type, net.driver, net.transport, net.legacy) == ("net", "virtio_net", "pci", False)
    assert net.status == RUNNING
    assert "VIRTIO_NET_F_MTU" in net.negotiated <= net.offered
    assert net.config["mtu"] == 1400
    assert net.config["mac"] == vm.nic("net0").mac
    assert [queue.size for queue in net.queues] == [256, 256, 64]
    assert net.vectors == 3

    disk = vm.virtio("disk0")
    assert {"VIRTIO_BLK_F_MQ", "VIRTIO_BLK_F_FLUSH", "VIRTIO_BLK_F_DISCARD"} <= disk.negotiated
    assert disk.config["capacity"] == (8 << 20) // 512
    assert disk.config["num_queues"] == 2
    assert [(queue.index, queue.size, queue.enabled) for queue in disk.queues] == [(0, 64, True), (1, 64, True)]
    assert disk.vectors == 3

    old = vm.virtio("disk1")
    assert old.legacy
    assert old.status == RUNNING - {"FEATURES_OK"}
    assert "VIRTIO_F_VERSION_1" not in old.offered
    assert old.config["capacity"] == (9 << 20) // 512

    adapter = vm.virtio("scsi0")
    assert adapter.config["num_queues"] == 3
    assert len(adapter.queues) == 5
    assert "VIRTIO_BALLOON_F_DEFLATE_ON_OOM" in vm.virtio("balloon0").negotiated
    assert vm.virtio("gpu0").config["num_scanouts"] == 1
    assert vm.virtio("keyboard0").type == "input"
    assert vm.virtio("iommu0").config["page_size_mask"] == 2**64 - 4096
    assert vm.virtio("mem0").config["region_size"] == 128 << 20
    assert vm.virtio("shell0").config["max_nr_ports"] == 31
    for name in ("net0", "disk0", "scsi0", "balloon0", "gpu0", "keyboard0", "iommu0", "mem0", "shell0"):
        assert not LEGACY_ONLY & vm.virtio(name).offered


@pytest.mark.vm(machine="microvm", drives=[Drive(size="8M")])
def test_virtio_mmio(vm: VM) -> None:
    disk = vm.virtio("disk0")
    assert (disk.transport, disk.legacy, disk.vectors) == ("mmio", True, 0)
    assert disk.config["capacity"] == (8 << 20) // 512


@pytest.mark.vm(devices=[VirtioPmem(size="32M")], memory="256M,maxmem=1G")
def test_a_device_whose_state_is_not_saved(vm: VM) -> None:
    """QEMU would leave it out in silence: what is saved has a driver without a device."""
    assert vm.started is not None
    assert vm.started.kind == "boot"
    assert vm.started.reason == "devices: QEMU does not save the state of 'virtio-pmem-pci'"
    assert vm.virtio("pmem0").status == RUNNING
    with pytest.raises(SpecError, match="VM 'vm': no snapshot: QEMU does not save the state of 'virtio-pmem-pci'"):
        vm.snapshot()


def test_a_device_without_a_driver(vm: VM) -> None:
    before = vm.virtio("rng0")
    vm.run(f"cd {vm.device('rng0').place.folder}/virtio* && basename $(pwd -P) >driver/unbind")
    seen = vm.virtio("rng0")
    assert seen.driver is None
    assert seen.status == {"ACKNOWLEDGE"}
    assert seen.negotiated == frozenset()
    assert seen.offered == before.offered
    vm.run(
        f"cd {vm.device('rng0').place.folder}/virtio* && basename $(pwd -P) >/sys/bus/virtio/drivers/virtio_rng/bind"
    )
    assert vm.virtio("rng0").negotiated == before.negotiated


def test_a_contradiction_is_told(shared: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    """No QEMU contradicts itself on demand: what it says is changed on the way."""

    def changed(*given: Any) -> Any:
        seen = look_in_qemu(*given)
        assert seen is not None
        return replace(seen, negotiated=(seen.negotiated | {22}) - {16}, status=seen.status - {"DRIVER_OK"})

    monkeypatch.setattr(virtio, "look_in_qemu", changed)
    with pytest.raises(NegotiationError) as caught:
        shared.virtio("net0")
    assert str(caught.value) == (
        "VM 'shared': guest and QEMU do not tell the same about 'net0' (virtio-net):\n"
        "  features only in the guest: VIRTIO_NET_F_STATUS\n"
        "  features only in QEMU: VIRTIO_NET_F_MQ\n"
        "  status only in the guest: DRIVER_OK"
    )
    assert caught.value.device == "net0"


def test_a_qemu_that_cannot_tell(shared: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtio, "look_in_qemu", lambda *_: None)
    seen = shared.virtio("net0")
    assert "VIRTIO_F_VERSION_1" in seen.negotiated
    with pytest.raises(Exception, match=r"QEMU before 7\.2 does not tell"):
        _ = seen.offered
    with pytest.raises(Exception, match=r"QEMU before 7\.2 does not tell"):
        _ = seen.queues


def test_what_is_not_virtio(vm_factory: VMFactory) -> None:
    vm = vm_factory(devices=[Device("edu")])
    with pytest.raises(SpecError, match=r"'device0' \(edu\) of VM 'vm'> is none of virtio"):
        vm.virtio("device0")
    with pytest.raises(SpecError, match="is none of virtio, or on another one's bus"):
        vm.virtio("port-shell-control")
    with pytest.raises(SpecError, match="no device has id 'net7'"):
        vm.virtio("net7")
