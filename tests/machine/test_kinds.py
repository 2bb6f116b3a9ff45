"""Machine types, CPUs, memory, kernels: the fields that shape the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, SpecError, VMFactory


@pytest.mark.parametrize(
    "machine", [pytest.param(kind, marks=pytest.mark.vm(machine=kind)) for kind in ("q35", "pc", "microvm")]
)
def test_machine_types(vm: VM, machine: str) -> None:
    assert vm.run("echo works").stdout == "works\n"
    assert vm.spec.machine == machine
    assert vm.run("ls /sys/class/net | grep -c eth").stdout == "1\n"


@pytest.mark.vm(smp="2,sockets=1,cores=2,threads=1,maxcpus=2", memory="192M", cpu="max", append="test.word=here")
def test_shape(vm: VM) -> None:
    assert vm.run("nproc").stdout == "2\n"
    total = int(vm.run("awk '/MemTotal/ {print $2}' /proc/meminfo").stdout)
    assert 120_000 < total < 192 * 1024
    words = vm.run("cat /proc/cmdline").stdout.split()
    assert words[-1] == "test.word=here"
    assert "console=ttyS0" in words


def test_extras(shared: VM) -> None:
    assert shared.spec.extras == ("balloon", "rng", "pvpanic", "vmgenid", "rootports")
    drivers = set(shared.run("for d in /sys/bus/virtio/drivers/*/virtio*; do echo ${d%/*}; done").stdout.split())
    assert {path.rsplit("/", 1)[1] for path in drivers} >= {"virtio_balloon", "virtio_rng", "virtio_net"}
    assert shared.run("grep -c QEMU0001 /proc/ioports /sys/bus/acpi/devices/*/hid", check=False).stdout
    assert len(shared.qmp.execute("query-pci")) == 1


@pytest.mark.vm(extras=[], devices=["virtio-rng-pci,id=mine"])
def test_without_extras(vm: VM) -> None:
    devices = {entry["qdev_id"] for entry in vm.qmp.execute("query-pci")[0]["devices"]}
    assert "mine" in devices
    assert not devices & {"balloon0", "rng0", "pvpanic0", "rootport0"}


@pytest.mark.vm(devices=["virtio-balloon-pci,id=mine"])
def test_a_declared_device_replaces_ours(vm: VM) -> None:
    devices = {entry["qdev_id"] for entry in vm.qmp.execute("query-pci")[0]["devices"]}
    assert "mine" in devices
    assert "balloon0" not in devices
    assert "rng0" in devices


def test_own_kernel_without_image(vm_factory: VMFactory, shared: VM) -> None:
    kernel = Path(shared.command[shared.command.index("-kernel") + 1])
    vm = vm_factory(image=None, kernel=kernel, append="panic=0", ready="none")
    vm.console.expect("Linux version", timeout=60)
    vm.console.expect("Command line: .*panic=0", timeout=60)
    assert vm.spec.nics is None
    assert "-netdev" not in vm.command


def test_contradictions_on_the_merged_spec(vm_factory: VMFactory) -> None:
    with pytest.raises(SpecError, match="there is no kernel to give it to; name one with kernel="):
        vm_factory(image=None, append="quiet")
    with pytest.raises(SpecError, match="ready='shell'"):
        vm_factory(image=None, ready="shell")


@pytest.mark.vm(boot="order=d,menu=off", memory=160, args=["-rtc", "base=2030-01-02T03:04:05"])
def test_args_come_last(vm: VM) -> None:
    assert vm.command[-2:] == ["-rtc", "base=2030-01-02T03:04:05"]
    assert vm.run("date +%Y").stdout == "2030\n"
