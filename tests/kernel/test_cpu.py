"""The processors of a guest, and the clock that it counts by."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, MachineError, host
from pytest_kvm.kernel.cpu import GuestCPU, parse_cpu

ARM = """
processor\t: 0
BogoMIPS\t: 125.00
Features\t: fp asimd crc32

processor\t: 1
Features\t: fp asimd
topology: -1 0 0
topology: -1 0 1
"""


def test_other_architectures() -> None:
    assert parse_cpu(ARM) == GuestCPU(
        model="", flags=frozenset({"fp", "asimd"}), count=2, sockets=1, cores=2, threads=1
    )
    assert parse_cpu("processor : 0\n") == GuestCPU(model="", flags=frozenset(), count=1, sockets=0, cores=0, threads=0)


def test_dies_have_cores_of_the_same_numbers() -> None:
    places = [(package, die, core) for package in (0, 1) for die in (0, 1) for core in (0, 1) for _ in "ab"]
    cpu = parse_cpu("".join(f"topology: {package} {die} {core}\n" for package, die, core in places))
    assert (cpu.count, cpu.sockets, cpu.cores, cpu.threads) == (16, 2, 4, 2)


@pytest.mark.vm(machine="q35,hpet=off", cpu="Haswell,-avx2", smp="2,sockets=1,cores=1,threads=2")
def test_what_was_declared(vm: VM) -> None:
    assert "Haswell" in host.cpu_models()
    cpu = vm.cpu
    assert cpu.model == "Intel Core Processor (Haswell)"
    assert "avx" in cpu.flags
    assert "avx2" not in cpu.flags
    assert (cpu.count, cpu.sockets, cpu.cores, cpu.threads) == (2, 1, 1, 2)
    assert "hpet" not in vm.clocksource.available
    vm.run("echo 0 >/sys/devices/system/cpu/cpu1/online")
    assert (vm.cpu.count, vm.cpu.threads) == (1, 1)


@pytest.mark.slow
@pytest.mark.vm(cpu="max,-tsc")
def test_without_a_time_stamp_counter(vm: VM) -> None:
    assert "tsc" not in vm.cpu.flags
    assert vm.clocksource.available == ["hpet", "acpi_pm"]
    assert vm.clocksource.current == "hpet"


def test_another_clock(vm: VM) -> None:
    clock = vm.clocksource
    assert {"hpet", "acpi_pm"} < set(clock.available)
    assert clock.current == clock.available[0] == ("kvm-clock" if vm.accel == "kvm" else "tsc")
    for name in ("acpi_pm", "hpet"):
        clock.set(name)
        assert vm.clocksource.current == name
    # Time goes on.
    began, ended = (float(vm.run("cut -d' ' -f1 /proc/uptime").stdout) for _ in range(2))
    assert 0 <= ended - began < 10
    with pytest.raises(MachineError) as caught:
        clock.set("sundial")
    there = ", ".join(clock.available)
    assert str(caught.value) == f"VM 'vm': its kernel has no clock source 'sundial'; it has {there}"
    assert clock.current == "hpet"
