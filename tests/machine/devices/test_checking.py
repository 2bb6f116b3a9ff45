"""Declared devices against the installed QEMU: what the user is told."""

from __future__ import annotations

import pytest

from pytest_kvm import CPU, Device, Drive, HostError, Nic, SpecError, VirtioGPU, VirtioRng, VMFactory
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.spec.devices import BaseDevice


@pytest.fixture
def version() -> str:
    """The installed QEMU's."""
    return find_qemu().version_text


WRONG: list[tuple[list[str | BaseDevice], str]] = [
    (
        [VirtioRng(properties={"max-byts": 3})],
        "device 'rng0' (virtio-rng-pci of QEMU {version}) has no property 'max-byts'; did you mean 'max-bytes'?",
    ),
    (
        [VirtioRng(transport="mmio")],
        "VirtioRng(transport='mmio'): transport 'mmio' cannot be on machine 'q35', which has pci",
    ),
    (
        [VirtioGPU(transport="pci-legacy")],
        "VirtioGPU(transport='pci-legacy'): virtio-gpu is newer than virtio 0.9 and has no legacy interface; use 'pci'",
    ),
    ([CPU()], "CPU() is for vm.plug(): it needs a machine that runs"),
]


@pytest.mark.parametrize(("devices", "text"), WRONG)
def test_wrong_devices(devices: list[str | BaseDevice], text: str, version: str, vm_factory: VMFactory) -> None:
    with pytest.raises(SpecError) as caught:
        vm_factory(devices=devices)
    assert str(caught.value) == text.format(version=version)


def test_properties_of_nothing(vm_factory: VMFactory) -> None:
    with pytest.raises(SpecError) as caught:
        vm_factory(properties={"nett0": {"mq": True}})
    assert str(caught.value) == "vm(properties=…): no device has id 'nett0'; did you mean 'net0'?"


def test_properties_of_drives_and_nics(vm_factory: VMFactory) -> None:
    with pytest.raises(
        SpecError, match=r"device 'disk0' \(virtio-blk-pci of .*'write-cach'; did you mean 'write-cache'"
    ):
        vm_factory(drives=[Drive(size="1M", properties={"write-cach": True})])
    with pytest.raises(SpecError, match=r"device 'net0' \(e1000e of .*'mrg_rxbuf'; valid are "):
        vm_factory(nics=[Nic(model="e1000e", properties={"mrg_rxbuf": True})])


def test_a_device_that_this_qemu_does_not_have(version: str, vm_factory: VMFactory) -> None:
    with pytest.raises(HostError) as caught:
        vm_factory(devices=[VirtioGPU(transport="pci-transitional")])
    assert str(caught.value).startswith(
        f"VirtioGPU(transport='pci-transitional'): QEMU {version} has no device 'virtio-gpu-pci-transitional'\n"
        "  of virtio-gpu it has virtio-gpu-"
    )
    with pytest.raises(HostError) as caught:
        vm_factory(devices=[Device("flux-capacitor")])
    assert str(caught.value) == (
        f"Device(driver='flux-capacitor'): QEMU {version} has no device 'flux-capacitor'\n"
        "  a newer QEMU may have it: --kvm-qemu=PATH"
    )
