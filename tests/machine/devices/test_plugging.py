"""Devices come and go in a running machine, and it can be saved, cloned and started again with what it has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm import (
    CPU,
    VM,
    Device,
    Dimm,
    Drive,
    HostError,
    HotplugError,
    Nic,
    QMPError,
    SpecError,
    VirtioConsole,
    VirtioGPU,
    VirtioMem,
    VirtioRng,
    VirtioSCSI,
    VirtioSerialPort,
    VMFactory,
)
from pytest_kvm.machine.devices.attached import AttachedPort

CYCLES = 100


def seen(vm: VM) -> list[str]:
    """Return what the guest has."""
    return vm.run("ls /sys/bus/pci/devices /sys/block /sys/class/net /sys/class/virtio-ports").stdout.split()


def test_disk_and_nic(vm: VM) -> None:
    before = seen(vm)
    disk = vm.plug(Drive(size="16M", serial="plugged"))
    assert (disk.id, disk.node) == ("disk0", "/dev/vda")
    assert vm.run("blockdev --getsize64 /dev/vda; cat /sys/block/vda/serial").stdout == "16777216\nplugged"
    assert vm.virtio("disk0").config["capacity"] == (16 << 20) // 512
    nic = vm.plug(Nic(mac="52:54:00:12:34:56"))
    assert (nic.id, nic.ifname) == ("net1", "eth1")
    assert vm.run("cat /sys/class/net/eth1/address").stdout == f"{nic.mac}\n"
    vm.unplug("disk0")
    vm.unplug("net1")
    assert seen(vm) == before
    with pytest.raises(SpecError, match="no drive has id 'disk0'; it has none"):
        vm.disk("disk0")
    assert "disk0" not in str(vm.qmp.execute("query-named-block-nodes"))
    assert "net1" not in vm.qmp.hmp("info network")


def test_other_devices(vm: VM) -> None:
    before = seen(vm)
    rng = vm.plug(VirtioRng(id="entropy", properties={"max-bytes": 1024, "period": 1000}))
    assert rng.get("max-bytes") == 1024
    assert vm.virtio("entropy").driver == "virtio_rng"
    port = vm.plug(VirtioSerialPort(name="org.example.0"))
    assert isinstance(port, AttachedPort)
    with port.connect() as connection:
        connection.sendall(b"plugged in\n")
        assert vm.run(f"head -n 1 <{port.node}").stdout == "plugged in\n"
    console = vm.plug(VirtioConsole())
    assert isinstance(console, AttachedPort)
    assert console.node == "/dev/hvc0"
    edu = vm.plug("edu,dma_mask=0xff")
    assert (edu.id, edu.get("dma_mask")) == ("device0", 255)
    for name in ("entropy", "port0", "console0", "device0"):
        vm.unplug(name)
    assert seen(vm) == before
    assert "entropy-source" not in str(vm.qmp.execute("qom-list", {"path": "/objects"}))
    assert "port0" not in str(vm.qmp.execute("query-chardev"))


def test_a_disk_with_filters_goes_with_them(vm: VM) -> None:
    disk = vm.plug(Drive(size="16M"))
    disk.fail("read")
    disk.throttle(iops=100)
    vm.unplug("disk0")
    assert vm.qmp.execute("query-named-block-nodes") == []
    disk = vm.plug(Drive(size="16M"))
    vm.run(f"dd if={disk.node} of=/dev/null bs=1M count=1 iflag=direct")
    disk.lose_unflushed()
    with pytest.raises(SpecError, match=r"keeps apart what is not flushed \(lose_unflushed\) until it goes off"):
        vm.unplug("disk0")


@pytest.mark.vm(devices=[VirtioSCSI(), Device("qemu-xhci", id="usb0")])
def test_disks_on_other_buses(vm: VM) -> None:
    first = vm.plug(Drive(size="9M", interface="scsi"))
    second = vm.plug(Drive(size="10M", interface="scsi"))
    stick = vm.plug(Drive(size="11M", interface="usb"))
    sizes = vm.run(f"for each in {first.node} {second.node} {stick.node}; do blockdev --getsize64 $each; done").stdout
    assert [int(size) >> 20 for size in sizes.split()] == [9, 10, 11]
    state = vm.snapshot()
    vm.restore(state)
    for disk in (first, second, stick):
        vm.unplug(disk.id)
    vm.run('until [ -z "$(ls /sys/block)" ]; do usleep 2000; done', timeout=30)


def test_networks_stay_what_they_are(vm: VM) -> None:
    vm.plug(Nic())
    nic = vm.plug(Nic())
    vm.unplug("net1")
    state = vm.snapshot()
    vm.restore(state)
    assert "id=net2,net=10.0.4.0/24" in str(vm.command)
    vm.run(f"ip link set {nic.ifname} up && ip addr add 10.0.4.15/24 dev {nic.ifname}")
    vm.run(f"ping -c 1 -W 5 -I {nic.ifname} 10.0.4.2")
    assert vm.plug(Nic()).id == "net1"
    assert "10.0.3.0" in vm.qmp.hmp("info network")


# Linux 6.12 complains when a SCSI adapter goes ("work disable count underflowed").
@pytest.mark.vm_allow_splat("enable_work")
def test_an_adapter_with_its_disk(vm: VM) -> None:
    vm.plug(VirtioSCSI())
    vm.plug(Device("qemu-xhci", id="usb0"))
    disk, stick = vm.plug(Drive(size="9M", interface="scsi")), vm.plug(Drive(size="10M", interface="usb"))
    vm.run(f"echo scsi >{disk.node}; echo usb >{stick.node}; sync")
    state = vm.snapshot()
    vm.restore(state)
    assert vm.run(f"head -n 1 {disk.node}; head -n 1 {stick.node}").stdout == "scsi\nusb\n"
    for name in (disk.id, stick.id, "scsi0"):
        vm.unplug(name)
    vm.plug(VirtioRng())


def test_a_machine_with_what_was_plugged_in(vm: VM, vm_factory: VMFactory) -> None:
    """Saved, put back, begun with by another one, switched off and on."""
    disk = vm.plug(Drive(size="16M"))
    vm.run(f"echo kept >{disk.node}")
    vm.plug(Nic(mac="52:54:00:12:34:56"))
    state = vm.snapshot()
    vm.unplug("disk0")
    vm.unplug("net1")
    vm.plug(VirtioRng())
    vm.restore(state)
    assert vm.run(f"head -n 1 {vm.disk('disk0').node}").stdout == "kept\n"
    assert vm.nic("net1").ifname == "eth1"
    with pytest.raises(SpecError, match="no device has id 'rng1'"):
        vm.device("rng1")
    vm.unplug("net1")
    other = vm_factory(snapshot=state)
    assert other.run(f"head -n 1 {other.disk('disk0').node}").stdout == "kept\n"
    other.unplug("disk0")
    other.unplug("net1")
    other.restore(state)
    assert other.nic("net1").ifname == "eth1"
    vm.power_cut()
    vm.start()
    assert vm.run(f"head -n 1 {vm.disk('disk0').node}").stdout == "kept\n"
    assert "net1" not in str(vm.command)
    vm.unplug("disk0")


@pytest.mark.vm(machine="pc")
def test_a_pc(vm: VM) -> None:
    """Any slot; what was there from the beginning can go, too, and nothing else moves because of that."""
    disk = vm.plug(Drive(size="16M"))
    assert disk.node == "/dev/vda"
    address = vm.nic("net0").address
    vm.unplug("rng0")
    state = vm.snapshot()
    vm.restore(state)
    assert vm.disk("disk0").node == "/dev/vda"
    vm.unplug("disk0")
    vm.power_cut()
    vm.start()
    assert vm.nic("net0").address == address
    with pytest.raises(SpecError, match="no device has id 'rng0'"):
        vm.device("rng0")


def test_memory(vm_factory: VMFactory) -> None:
    vm = vm_factory(memory="256M,slots=2,maxmem=1G")

    def total() -> int:
        return int(vm.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").stdout) // 1024

    before = total()
    vm.plug(Dimm(size="128M"))
    assert total() > before + 100
    state = vm.snapshot()
    vm.restore(state)
    assert total() > before + 100
    vm.unplug("dimm0")
    assert total() == before
    with vm.qmp.expect_event("MEMORY_DEVICE_SIZE_CHANGE", match={"id": "mem0", "size": 128 << 20}, timeout=60):
        memory = vm.plug(VirtioMem(size="256M", requested="128M"))
    assert memory.get("size") == 128 << 20
    assert total() > before + 100
    with pytest.raises(QMPError, match="cannot be unplugged"):  # QEMU 7.2's words
        vm.unplug("mem0")


def test_processors(vm_factory: VMFactory, installed_kernel: Path) -> None:
    """On Linux 6.1: 6.12 does not take any where it sees no hypervisor."""
    vm = vm_factory(kernel=installed_kernel, smp="1,maxcpus=3")
    vm.plug(CPU())
    vm.plug(CPU(core=2))
    assert vm.run("nproc").stdout == "3\n"
    with pytest.raises(
        SpecError, match=r"no place is free for CPU\(\); there are none; give it more, as in smp='1,max"
    ):
        vm.plug(CPU())
    if vm.accel == "tcg" and vm._binary.version < (8, 0):
        with pytest.raises(HostError, match="corrupts its memory when an emulated CPU is unplugged"):
            vm.unplug("cpu0")
    else:
        vm.unplug("cpu0")
        assert vm.run("nproc").stdout == "2\n"
        vm.plug(CPU())
    assert vm.run("nproc").stdout == "3\n"
    state = vm.snapshot()
    vm.restore(state)
    assert vm.run("nproc").stdout == "3\n"


@pytest.mark.vm(smp="1,maxcpus=2")
def test_a_kernel_without_room_for_processors(vm: VM) -> None:
    possible = vm.run("cat /sys/devices/system/cpu/possible").stdout.strip()
    if possible != "0":
        pytest.skip(f"this kernel has room: {possible}")
    with pytest.raises(HotplugError, match="the guest's kernel has no room for the processor 'cpu0': possible is 0"):
        vm.plug(CPU())


def test_surprise(vm: VM) -> None:
    """The guest is not asked, and goes on all the same."""
    disk = vm.plug(Drive(size="16M"))
    vm.run(f"dd if={disk.node} of=/dev/null bs=1M")
    folder = disk.place.folder
    vm.unplug("disk0", surprise=True)
    assert vm.run(f"cat {folder}/vendor {folder}/virtio*/status").stdout == "0x1af4\n0x00000000\n"
    with pytest.raises(SpecError, match="no device has id 'disk0'"):
        vm.device("disk0")
    vm.run(f"echo 1 >{folder}/remove", timeout=60)  # it has looked, and seen
    vm.unplug(vm.plug(Nic()).id)


def test_a_guest_that_refuses(vm: VM) -> None:
    """Its kernel does not hear of it: ACPI's interrupt is masked."""
    disk = vm.plug(Drive(size="16M"))
    gpe = vm.run("grep -l enabled /sys/firmware/acpi/interrupts/gpe01").stdout.strip()
    vm.run(f"echo disable >{gpe}")
    with pytest.raises(HotplugError) as caught:
        vm.unplug("disk0", timeout=0.5)
    assert str(caught.value) == (
        "VM 'vm': the guest does not give 'disk0' back, after 0.5 s; is it in use there, or has the guest not come to "
        "it? It stays plugged in, and goes when the guest lets it"
    )
    assert caught.value.device == "disk0"
    assert vm.run(f"head -c 3 {disk.node} | wc -c").stdout == "3\n"
    with pytest.raises(
        HotplugError, match=r"VM 'vm': the guest does not have 'net1' 0\.5 s after it was plugged in; it"
    ):
        vm.plug(Nic(), timeout=0.5)


WRONG: list[tuple[Callable[[VM], object], type[Exception], str]] = [
    (lambda vm: vm.plug(Drive(size="1M", interface="ide")), SpecError, "cannot be plugged in: ide is no bus for that"),
    (
        lambda vm: vm.plug(Drive(size="1M", interface="scsi")),
        SpecError,
        r"there is no SCSI adapter; declare one, or plug",
    ),
    (lambda vm: vm.plug(Drive(size="1M", interface="usb")), SpecError, r"there is no USB; declare Device\('qemu-xhci'"),
    (lambda vm: vm.plug(Drive("/no/such/disk")), SpecError, "No such file|does not exist|no such file"),
    (lambda vm: vm.plug(VirtioRng(id="rng0")), SpecError, "the id 'rng0' is taken"),
    (
        lambda vm: vm.plug(VirtioRng(properties={"maxbytes": 1})),
        SpecError,
        "no property 'maxbytes'; did you mean 'max-b",
    ),
    (lambda vm: vm.plug(VirtioRng(transport="mmio")), SpecError, "cannot be on machine 'q35', which has pci"),
    (lambda vm: vm.plug("flux-capacitor"), HostError, "has no device 'flux-capacitor'"),
    (lambda vm: vm.plug(VirtioGPU(transport="pci-transitional")), HostError, "no device 'virtio-gpu-pci-transitional'"),
    (lambda vm: vm.plug("virtio-balloon-pci"), QMPError, "Only one balloon device is supported"),
    (lambda vm: vm.plug(Dimm(size="128M")), QMPError, "no slots where allocated"),
    (lambda vm: vm.unplug("net7"), SpecError, "no device has id 'net7'; did you mean 'net0'"),
    (lambda vm: vm.unplug("shell0"), SpecError, "'shell0' is what the machine lives on"),
    (lambda vm: vm.unplug("balloon0"), QMPError, r"Bus 'pcie\.0' does not support hotplugging"),
]


@pytest.mark.parametrize(("act", "error", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong(act: Callable[[VM], object], error: type[Exception], text: str, shared: VM) -> None:
    before = shared.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    with pytest.raises(error, match=text):
        act(shared)
    assert shared.qmp.execute("qom-list", {"path": "/machine/peripheral"}) == before
    assert shared.qmp.execute("query-named-block-nodes") == []


def test_no_port_is_left(vm: VM) -> None:
    for _ in range(4):
        vm.plug(VirtioRng())
    with pytest.raises(
        SpecError, match="no root port is left for device 'rng5': rootport0, rootport1, rootport2, root"
    ):
        vm.plug(VirtioRng())
    vm.unplug("rng2")
    assert vm.plug(VirtioRng()).id == "rng2"


@pytest.mark.vm(machine="microvm")
def test_a_machine_without_hotplug(vm: VM) -> None:
    with pytest.raises(
        SpecError, match="drive 'disk0' cannot be plugged in: a machine 'microvm' has no PCI that is known"
    ):
        vm.plug(Drive(size="1M"))


def again_and_again(vm: VM, vm_factory: VMFactory, times: int) -> None:
    before = seen(vm)
    descriptors = 0
    for number in range(times):
        disk = vm.plug(Drive(size="8M"))
        nic = vm.plug(Nic())
        assert re.fullmatch("/dev/vd[a-z]", disk.node)
        vm.run(f"dd if=/dev/zero of={disk.node} bs=64k count=1 oflag=direct 2>/dev/null; ip link set {nic.ifname} up")
        vm.unplug(disk.id)
        vm.unplug(nic.id)
        if number == 0:
            descriptors = len(os.listdir(f"/proc/{vm.pid}/fd"))
    assert seen(vm) == before
    assert len(os.listdir(f"/proc/{vm.pid}/fd")) <= descriptors
    assert len([path for path in vm._folder.iterdir() if path.name.startswith("disk")]) == 0
    vm.plug(Drive(size="8M"))
    state = vm.snapshot()
    other = vm_factory(snapshot=state)
    assert other.disk("disk0").node == vm.disk("disk0").node
    other.unplug("disk0")
    assert seen(other) == before
    assert other.run("uname -s").stdout == "Linux\n"


def test_again_and_again(vm: VM, vm_factory: VMFactory) -> None:
    again_and_again(vm, vm_factory, 5)


@pytest.mark.slow
def test_a_hundred_times(vm: VM, vm_factory: VMFactory) -> None:
    again_and_again(vm, vm_factory, CYCLES)
