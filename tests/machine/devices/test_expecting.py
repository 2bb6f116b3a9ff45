"""A matrix of features: negotiated as the properties say, in guest and QEMU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pytest_kvm import VM, Drive, NegotiationError, Nic, VirtioBalloon, VirtioRng, VirtioSCSI, VirtioSerial
from pytest_kvm.machine.devices.expecting import check_features, told
from pytest_kvm.spec.devices import BaseDevice

Cell = Mapping[str, object]
# What every type of device can have on or off.
COMMON: Sequence[Cell] = (
    {},
    {"packed": True},
    {"event_idx": False, "packed": False},
    {"indirect_desc": False},
    {"disable-modern": True, "disable-legacy": False},
    {"disable-legacy": True, "queue_reset": False},
)
OWN: Mapping[str, Sequence[Cell]] = {
    "net0": (
        {"mq": True, "mrg_rxbuf": False, "guest_tso4": False, "disable-legacy": True, "iommu_platform": True},
        {"host_mtu": 1400, "rx_queue_size": 512, "tx_queue_size": 256, "ctrl_rx": True, "ats": True},
    ),
    "disk0": (
        {"num-queues": 2, "queue-size": 128, "disable-legacy": True, "iommu_platform": True},
        {"config-wce": False, "discard": False, "write-zeroes": False, "packed": True},
    ),
    "scsi0": ({"num_queues": 2, "virtqueue_size": 128}, {"hotplug": False, "param_change": False}),
    "balloon0": ({"deflate-on-oom": True, "free-page-reporting": True}, {"page-poison": False, "packed": True}),
    "rng0": ({"max-bytes": 1024, "period": 1000}, {"event_idx": False, "queue_reset": True}),
    "serial0": ({"max_ports": 4}, {"emergency-write": False, "indirect_desc": True}),
}
MADE: Mapping[str, Callable[[Cell], Drive | Nic | BaseDevice]] = {
    "net0": lambda cell: Nic(id="net0", properties=cell),
    "disk0": lambda cell: Drive(size="8M", id="disk0", properties=cell),
    "scsi0": lambda cell: VirtioSCSI(properties=cell),
    "balloon0": lambda cell: VirtioBalloon(properties=cell),
    "rng0": lambda cell: VirtioRng(properties=cell),
    "serial0": lambda cell: VirtioSerial(properties=cell),
}
# What Linux's drivers never ask for.
UNTAKEN = {"net0": ["ctrl_rx_extra"], "balloon0": ["indirect_desc", "page-poison"], "serial0": ["emergency-write"]}


# Linux 6.12 complains when a SCSI adapter goes ("work disable count underflowed").
@pytest.mark.vm_allow_splat("enable_work")
@pytest.mark.vm(extras=["rootports"], nics=[])
@pytest.mark.parametrize("name", OWN)
def test_matrix(name: str, vm: VM) -> None:
    """Eight cells of six types of devices; in each, guest and QEMU are compared."""
    cells = [*COMMON, *OWN[name]]
    axes = {key for cell in cells for key in cell} - {"disable-modern", "disable-legacy"}
    for cell in cells:
        vm.plug(MADE[name](cell))
        # What a modern driver is offered and leaves, a legacy one may not even see.
        left = [] if vm.virtio(name).legacy else list(axes - cell.keys())
        check_features(vm, name, cell, left=left, untaken=UNTAKEN.get(name, ()))
        assert vm.virtio(name).legacy == ("disable-modern" in cell)
        vm.unplug(name)


def test_what_was_asked_and_is_not(shared: VM) -> None:
    """Both sides are shown."""
    for cell, problem in (
        ({"packed": True}, "packed=on: VIRTIO_F_RING_PACKED is not offered"),
        ({"mrg_rxbuf": False}, "mrg_rxbuf=off: VIRTIO_NET_F_MRG_RXBUF was negotiated"),
        (
            {"ctrl_rx_extra": True},
            "ctrl_rx_extra=on: VIRTIO_NET_F_CTRL_RX_EXTRA is offered, and the driver did not take it",
        ),
        ({"ctrl_rx_extra": False}, "ctrl_rx_extra=off: VIRTIO_NET_F_CTRL_RX_EXTRA is offered"),
        ({"rx_queue_size": 64}, "rx_queue_size=64: the queues' sizes are 256"),
        ({"host_mtu": 1400}, "host_mtu=1400: VIRTIO_NET_F_MTU is not offered"),
        ({"ats": True}, "ats=on: QEMU has ats=off"),
    ):
        with pytest.raises(NegotiationError) as caught:
            check_features(shared, "net0", cell)
        lines = str(caught.value).splitlines()
        assert lines[:2] == [
            f"VM 'shared': 'net0' (virtio-net, driver virtio_net) with {told(cell)} is not what it should be:",
            f"  {problem}",
        ]
        assert [line.partition(":")[0] for line in lines[-3:]] == [
            "  the device offers",
            "  the driver took",
            "  status",
        ]
    with pytest.raises(
        NegotiationError, match="ctrl_rx_extra was left alone: VIRTIO_NET_F_CTRL_RX_EXTRA is offered, and"
    ):
        check_features(shared, "net0", {}, left=["ctrl_rx_extra"])
    check_features(shared, "net0", {"ctrl_rx_extra": True}, untaken=["ctrl_rx_extra"])


@pytest.mark.vm(properties={"net0": {"ctrl_vq": False}}, nics=None)
def test_a_driver_that_gives_up(vm: VM) -> None:
    """Linux's refuses a device with half of the control queue's features."""
    assert "FAILED" in vm.virtio("net0").status
    with pytest.raises(NegotiationError, match="\n  no driver of the guest's has it working\n"):
        check_features(vm, "net0", {"ctrl_vq": False})


@pytest.mark.vm(devices=[VirtioRng(id="a", properties={"packed": True})])
def test_a_device_of_ones_own(vm: VM) -> None:
    check_features(vm, "a", {"packed": "on", "event_idx": "on"})
