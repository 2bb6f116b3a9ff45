"""Declared devices: what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kvm import (
    CPU,
    Device,
    Dimm,
    Drive,
    Nic,
    SpecError,
    VirtioMem,
    VirtioPmem,
    VirtioRng,
    VirtioSerialPort,
    VMSpec,
)

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: Device("a,b"), "Device(driver='a,b'): expected QEMU's name of a device such as 'edu', got 'a,b'"),
    (
        lambda: VirtioRng(id="1"),
        "VirtioRng(id='1'): expected a QEMU id (a letter, then letters, digits, '-', '.' or '_'), got '1'",
    ),
    (
        lambda: VirtioRng(transport="isa"),
        "VirtioRng(transport='isa'): unknown value 'isa'; valid are pci, pci-legacy, pci-transitional, "
        "pci-non-transitional or mmio",
    ),
    (
        lambda: VirtioRng(properties={"rng": "x"}),
        "VirtioRng(properties={'rng': 'x'}): the property 'rng' is set by the plugin; it cannot be given here",
    ),
    (
        lambda: VirtioRng(speed=3),  # type: ignore[call-arg]
        "VirtioRng(speed=…): unknown keyword 'speed'; valid are id, properties, transport or filename",
    ),
    (
        lambda: VirtioSerialPort(name="a b"),
        "VirtioSerialPort(name='a b'): expected the name of a port such as 'org.example.0', got 'a b'",
    ),
    (lambda: Dimm(size="100M"), "Dimm(size='100M'): Linux takes memory in blocks of 128 MiB, got '100M'"),
    (lambda: Dimm(size="x"), "Dimm(size='x'): expected a size such as '512M' or '1.5G' (without a suffix: B), got 'x'"),
    (
        lambda: VirtioMem(size="128M", requested="x"),
        "VirtioMem(requested='x'): expected a size such as '512M' or '1.5G' (without a suffix: B), got 'x'",
    ),
    (lambda: VirtioPmem(size="3M"), "VirtioPmem(size='3M'): it is a multiple of 2 MiB, got '3M'"),
    (VirtioPmem, "VirtioPmem(): give it a file or a size"),
    (lambda: CPU(core=-1), "CPU(core=-1): expected a core of at least 0, got -1"),
    (
        lambda: Drive(size="1M", interface="scsi", transport="pci"),
        "Drive(interface='scsi', transport='pci'): only virtio disks have one; of SCSI, VirtioSCSI has",
    ),
    (
        lambda: Nic(model="e1000", transport="pci"),
        "Nic(model='e1000', transport='pci'): only virtio has transports; leave one of them out",
    ),
    (
        lambda: VMSpec(devices=[Drive(size="1M")]),  # type: ignore[list-item]
        "vm(devices=[Drive(size='1M')]): expected a device, got Drive(size='1M') (Drive); "
        "write drives=[Drive(size='1M')]",
    ),
    (
        lambda: VMSpec(devices=[VirtioRng(id="a"), VirtioRng(id="a")]),
        "vm(devices=…, devices=…): a device and a device have id 'a'",
    ),
    (
        lambda: VMSpec(devices=[VirtioRng(id="net5")], nics=[Nic(id="net5")]),
        "vm(nics=…, devices=…): a NIC and a device have id 'net5'",
    ),
    (
        lambda: VMSpec(properties=["net0"]),  # type: ignore[arg-type]
        "vm(properties=['net0']): expected a mapping of ids to properties, such as {'net0': {'mrg_rxbuf': False}}, "
        "got ['net0'] (list)",
    ),
    (
        lambda: VMSpec(properties={"net0": {"id": "x"}}),
        "vm(properties={'net0': {'id': 'x'}}): the property 'id' is set by the plugin; it cannot be given here",
    ),
]


@pytest.mark.parametrize(("make", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong(make: Callable[[], object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert str(caught.value) == text


def test_written_as_it_was_made() -> None:
    assert repr(VirtioRng(id="a", properties={"max-bytes": 1})) == "VirtioRng(id='a', properties={'max-bytes': 1})"
    assert repr(VirtioPmem("f")) == "VirtioPmem(file='f')"
