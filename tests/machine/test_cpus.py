"""CPU models that cannot be: what the user is told."""

from __future__ import annotations

import pytest

from pytest_kvm import HostError, VMFactory
from pytest_kvm.qemu.binary import find_qemu


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
