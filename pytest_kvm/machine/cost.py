"""What a machine takes of its host."""

from __future__ import annotations

from pytest_kvm.host.amounts import Amount
from pytest_kvm.host.request import Wanted
from pytest_kvm.spec.size import parse_memory
from pytest_kvm.spec.smp import parse_smp
from pytest_kvm.spec.vm import VMSpec

# Measured with QEMU 7.2: 115 MiB beside the RAM of a booted Linux guest under TCG, most of it translated code.
QEMU_ITSELF = 128 << 20


def wanted(spec: VMSpec) -> Wanted:
    """Return what a machine of this spec is called, and takes when it has used all that it may have.

    That is its whole RAM, with what may be plugged in (``maxmem``), also of a clone, which begins with much less; QEMU
    itself; and the virtual CPUs that it starts with. What ``args`` adds is not seen. Raises SpecError.
    """
    memory = parse_memory(spec.memory)
    amount = Amount((memory.maxmem or memory.size) + QEMU_ITSELF, parse_smp(spec.smp).cpus, 1)
    return Wanted(f"VM {spec.name!r}", amount)
