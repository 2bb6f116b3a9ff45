"""What QEMU is told about declared devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.qemu.built import devices_of, with_properties
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import DriveFile, plan_devices, plan_drives
from pytest_kvm.spec import devices as typed
from pytest_kvm.spec.devices import BaseDevice
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary
from tests.qemu.plans import plan, tail

TOLD: list[tuple[BaseDevice, str, str]] = [
    (typed.Device("edu", properties={"dma_mask": 3}), "q35", "-device edu,id=device0,dma_mask=3"),
    (typed.VirtioBalloon(), "microvm", "-device virtio-balloon-device,id=balloon0"),
    (
        typed.VirtioRng(filename="/dev/a,b"),
        "q35",
        "-object rng-random,id=rng0-source,filename=/dev/a,,b -device virtio-rng-pci,id=rng0,rng=rng0-source",
    ),
    (
        typed.VirtioSCSI(transport="pci-legacy", properties={"num_queues": 2}),
        "pc",
        "-device virtio-scsi-pci,id=scsi0,disable-legacy=off,disable-modern=on,num_queues=2",
    ),
    (typed.VirtioSCSI(transport="pci-non-transitional"), "q35", "-device virtio-scsi-pci-non-transitional,id=scsi0"),
    (
        typed.VirtioSerialPort(name="org.example.0"),
        "q35",
        "-device virtio-serial-pci,id=port0-bus -chardev socket,id=port0,path=port0,server=on,wait=off "
        "-device virtserialport,id=port0,chardev=port0,name=org.example.0,bus=port0-bus.0",
    ),
    (
        typed.VirtioConsole(bus="serial0"),
        "q35",
        "-chardev socket,id=console0,path=console0,server=on,wait=off "
        "-device virtconsole,id=console0,bus=serial0.0,chardev=console0",
    ),
    (
        typed.VirtioCrypto(id="c"),
        "q35",
        "-object cryptodev-backend-builtin,id=c-backend -device virtio-crypto-pci,id=c,cryptodev=c-backend",
    ),
    (
        typed.VirtioSound(),
        "q35",
        "-audiodev none,id=sound0-audio -device virtio-sound-pci,id=sound0,audiodev=sound0-audio",
    ),
    (
        typed.Dimm(size="128M", node=1),
        "q35",
        "-object memory-backend-ram,id=dimm0-memory,size=134217728 -device pc-dimm,id=dimm0,memdev=dimm0-memory,node=1",
    ),
    (
        typed.VirtioMem(size="256M", requested="128M"),
        "q35",
        "-object memory-backend-ram,id=mem0-memory,size=268435456 "
        "-device virtio-mem-pci,id=mem0,memdev=mem0-memory,requested-size=134217728",
    ),
    (
        typed.VirtioPmem("/d/pmem", size="2M"),
        "q35",
        "-object memory-backend-file,id=pmem0-memory,size=2097152,mem-path=/d/pmem,share=on "
        "-device virtio-pmem-pci,id=pmem0,memdev=pmem0-memory",
    ),
]


@pytest.mark.parametrize(("device", "machine", "text"), TOLD)
def test_told(device: BaseDevice, machine: str, text: str) -> None:
    assert " ".join(tail(plan(VMSpec(machine=machine, nics=[], devices=[device])))) == text


def test_ids_in_order_of_declaration() -> None:
    spec = VMSpec(devices=[typed.VirtioRng(), typed.VirtioRng(id="rng1"), typed.VirtioRng(), typed.VirtioGPU()])
    assert [planned.id for planned in plan_devices(spec)] == ["rng0", "rng1", "rng2", "gpu0"]
    assert [planned.id for planned in plan_devices(spec, {"gpu0"})][-1] == "gpu1"


def test_a_declared_adapter_has_the_scsi_disks() -> None:
    spec = VMSpec(drives=[Drive(size="1M", interface="scsi")], devices=[typed.VirtioSCSI(id="adapter"), "edu"])
    planned = plan(spec, drives=[(plan_drives(spec)[0], DriveFile(Path("/d/0"), "raw"))])
    told = devices_of(build(planned, binary()))
    assert list(told) == ["net0", "adapter", "disk0"]
    assert told["disk0"].settings["bus"] == "adapter.0"


def test_transports_of_disks_and_cards() -> None:
    spec = VMSpec(drives=[Drive(size="1M", transport="pci-legacy")], nics=[Nic(transport="pci-transitional")])
    planned = plan(spec, drives=[(plan_drives(spec)[0], DriveFile(Path("/d/0"), "raw"))])
    told = devices_of(build(planned, binary()))
    assert told["disk0"].driver == "virtio-blk-pci"
    assert told["disk0"].settings["disable-modern"] == "on"
    assert told["net0"].driver == "virtio-net-pci-transitional"


def test_a_transport_that_the_machine_has_not() -> None:
    with pytest.raises(SpecError, match=r"Nic\(transport='pci'\): transport 'pci' cannot be on machine 'microvm'"):
        build(plan(VMSpec(machine="microvm", nics=[Nic(transport="pci")])), binary())


def test_more_properties() -> None:
    told = [
        "-device",
        "edu,id=a",
        "-name",
        "edu,id=a",
        "-device",
        '{"driver": "edu", "id": "b"}',
        "-device",
        "id=c,driver=x",
    ]
    more: dict[str, dict[str, object]] = {"a": {"x": "1,2", "y": True}, "b": {"z": 3}, "c": {}}
    assert list(with_properties(told, more)) == [
        *("-device", "edu,id=a,x=1,,2,y=on", "-name", "edu,id=a"),
        *("-device", '{"driver": "edu", "id": "b", "z": 3}', "-device", "id=c,driver=x"),
    ]
    found = devices_of(told)
    assert {name: built.driver for name, built in found.items()} == {"a": "edu", "b": "edu", "c": "x"}
