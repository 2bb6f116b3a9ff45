"""CPU models: those that cannot be, and what the user is told; the one that QEMU emulates wrongly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_kvm import VM, HostError, VMFactory
from pytest_kvm.qemu.binary import find_qemu

# How often CMPXCHG16B, after a subtraction, has turned the direction flag round.
FLAGS = """
#include <stdio.h>
static _Alignas(16) unsigned long memory[2];
int main(void)
{
    int wrong = 0;
    for (unsigned long i = 0; i < 10000; i++) {
        unsigned long low = 0, high = 0, of = i, flags;
        asm volatile("pushfq; popfq; sub %6, %5; cmpxchg16b %1; pushfq; cld; pop %0"
                     : "=&r"(flags), "+m"(memory), "+a"(low), "+d"(high), "+b"(low), "+&r"(of)
                     : "r"(i * 77), "c"(high) : "cc", "memory");
        wrong += (flags & 0x400) != 0;
    }
    printf("%d\\n", wrong);
}
"""


def refused(vm_factory: VMFactory, **fields: object) -> str:
    with pytest.raises(HostError) as caught:
        vm_factory(**fields)  # type: ignore[arg-type]  # a test's own words
    return str(caught.value)


def test_a_model_that_this_qemu_does_not_have(vm_factory: VMFactory) -> None:
    version = find_qemu().version_text
    assert refused(vm_factory, cpu="Haswel,-avx2") == (
        f"vm(cpu='Haswel,-avx2'): QEMU {version} has no CPU model 'Haswel'\n"
        "  did you mean 'Haswell'? pytest_kvm.host.cpu_models() has all; a newer QEMU may have it: --kvm-qemu=PATH"
    )
    assert refused(vm_factory, cpu="6502").endswith(
        "'6502'\n  pytest_kvm.host.cpu_models() has all; a newer QEMU may have it: --kvm-qemu=PATH"
    )


def test_the_hosts_own_is_not_emulated(vm_factory: VMFactory) -> None:
    assert refused(vm_factory, cpu="host", accel="tcg") == (
        "vm(cpu='host'): the host's own CPU needs KVM or HVF, and this machine is emulated (accel=tcg)\n"
        "  cpu='max' has all that the accelerator can do, whichever it is"
    )


@pytest.mark.parametrize("start", ["boot", "auto"])
def test_enforced_features(start: str, vm_factory: VMFactory) -> None:
    assert refused(vm_factory, cpu="Haswell,enforce", accel="tcg", start=start) == (
        "vm(cpu='Haswell,enforce'): this host cannot give CPUID.01H:ECX.pcid, CPUID.01H:ECX.x2apic, "
        "CPUID.01H:ECX.tsc-deadline, CPUID.07H:EBX.hle, CPUID.07H:EBX.invpcid, CPUID.07H:EBX.rtm (accel=tcg)\n"
        "  without enforce, QEMU leaves out what it cannot give, and vm.cpu.flags says what is there"
    )


@pytest.mark.vm(accel="tcg")
def test_an_instruction_that_is_emulated_wrongly(vm: VM, vm_factory: VMFactory, tmp_path: Path) -> None:
    sound = find_qemu().version >= (8, 0)
    assert ("cx16" in vm.cpu.flags) == sound
    (tmp_path / "flags.c").write_text(FLAGS)
    options = ("-O1", "-mno-red-zone", "-static")
    subprocess.run(["gcc", *options, "-o", tmp_path / "flags", tmp_path / "flags.c"], check=True)
    other = vm_factory(accel="tcg", cpu="qemu64")
    assert "cx16" in other.cpu.flags
    assert (int(other.run_local(tmp_path / "flags").stdout) == 0) == sound
