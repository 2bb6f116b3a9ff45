"""The devices of a running machine: by their ids, and by what the guest calls them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kvm import (
    VM,
    Drive,
    FromFixture,
    MachineError,
    SpecError,
    VirtioConsole,
    VirtioSCSI,
    VirtioSerialPort,
)
from pytest_kvm.machine.devices.attached import AttachedPort

INTERFACES = ("virtio", "scsi", "ide", "nvme", "usb")


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    path = tmp_path / "cd.iso"
    path.write_bytes(b"c" * (1 << 20))
    return path


@pytest.mark.vm(
    cdrom=FromFixture("iso"),
    drives=[
        *(Drive(size=f"{number}M", interface=name) for number, name in enumerate(INTERFACES, 8)),
        Drive(size="1440k", interface="floppy"),
    ],
    devices=[VirtioSCSI(id="adapter"), VirtioSerialPort(id="org.example.port"), VirtioConsole()],
)
def test_every_kind_of_disk_and_port(vm: VM) -> None:
    nodes = [vm.disk(f"disk{number}").node for number in range(len(INTERFACES))]
    sizes = vm.run(f"for node in {' '.join(nodes)}; do blockdev --getsize64 $node; done").stdout.split()
    assert [int(size) >> 20 for size in sizes] == [8, 9, 10, 11, 12]
    assert vm.disk("cdrom0").node == "/dev/sr0"
    assert vm.run("head -c 3 /dev/sr0").stdout == "ccc"
    assert vm.disk("disk5").node == "/dev/fd0"
    port = vm.device("org.example.port")
    assert isinstance(port, AttachedPort)
    with port.connect() as connection:
        connection.sendall(b"from the host\n")
        assert vm.run(f"head -n 1 <{port.node}").stdout == "from the host\n"
        vm.run(f"echo from the guest >{port.node}")
        assert connection.recv(100) == b"from the guest\n"
    console = vm.device("console0")
    assert isinstance(console, AttachedPort)
    assert console.node == "/dev/hvc0"


@pytest.mark.vm(machine="pc", cdrom=FromFixture("iso"), drives=[Drive(size=f"{n}M", interface="ide") for n in (3, 4)])
def test_two_ide_disks_to_a_channel(vm: VM) -> None:
    assert vm.disk("cdrom0").node == "/dev/sr0"
    sizes = [vm.run(f"blockdev --getsize64 {vm.disk(name).node}").stdout for name in ("disk0", "disk1")]
    assert [int(size) >> 20 for size in sizes] == [3, 4]


@pytest.mark.vm(machine="microvm", drives=[Drive(size="3M"), Drive(size="4M", interface="scsi")])
def test_virtio_mmio(vm: VM) -> None:
    assert [vm.disk(name).node for name in ("disk0", "disk1")] == ["/dev/vda", "/dev/sda"]
    assert vm.nic("net0").ifname == "eth0"
    assert re.fullmatch("0xfeb0[0-9a-f]{4}", vm.device("rng0").address)


def test_a_network_card(vm: VM) -> None:
    nic = vm.nic("net0")
    assert vm.run(f"cat /sys/class/net/{nic.ifname}/address").stdout == f"{nic.mac}\n"
    assert vm.run(f"cat /sys/bus/pci/devices/{nic.address}/vendor").stdout == "0x1af4\n"
    assert nic.driver == "virtio-net-pci"
    assert nic.get("mrg_rxbuf") is True
    assert nic.properties["mac"] == nic.mac


@pytest.mark.vm(properties={"balloon0": {"deflate-on-oom": True}})
def test_properties_by_id(vm: VM) -> None:
    assert vm.device("balloon0").get("deflate-on-oom") is True


def test_what_there_is_not(shared: VM) -> None:
    with pytest.raises(SpecError, match=r"VM 'shared': no device has id 'nett0'; did you mean 'net0'\?"):
        shared.device("nett0")
    with pytest.raises(SpecError, match="VM 'shared': no drive has id 'disk0'; it has none"):
        shared.disk("disk0")
    with pytest.raises(SpecError, match="VM 'shared': no NIC has id 'net1'; did you mean 'net0'"):
        shared.nic("net1")
    with pytest.raises(SpecError, match=r"device 'net0' \(virtio-net-pci\): .*'virtio-net-pci.x' not found"):
        shared.device("net0").get("x")
    with pytest.raises(MachineError, match="'port-shell-control' is neither on PCI nor virtio-mmio"):
        _ = shared.device("port-shell-control").address
