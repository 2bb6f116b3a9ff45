"""What machines take of a host, what they may take together, and whether that fits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_kvm.host.memory import total

UNLIMITED = (1 << 63) - 1
_MIB = 1 << 20
# The rest is for the host, pytest, the templates, and the page cache that machines begin from.
_SHARE_OF_MEMORY = 3, 4
# More virtual CPUs than real ones only make machines slower; many more make them run into their deadlines.
_VCPUS_PER_CPU = 16
_FEWEST_VCPUS = 32


@dataclass(frozen=True)
class Amount:
    """What a machine, or several together, take: ``memory`` in bytes, virtual CPUs, and how many machines they are."""

    memory: int = 0
    vcpus: int = 0
    machines: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.memory + other.memory, self.vcpus + other.vcpus, self.machines + other.machines)

    def __str__(self) -> str:
        return f"{mib(self.memory)} MiB and {self.vcpus} vCPU{'s' if self.vcpus != 1 else ''}"


NOTHING = Amount()


@dataclass(frozen=True)
class Limits:
    """What the machines of one user may take together on this host: bytes, virtual CPUs, machines."""

    memory: int = UNLIMITED
    vcpus: int = UNLIMITED
    machines: int = UNLIMITED

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self == Limits()

    def exceeded(self, taken: Amount, wanted: Amount) -> list[str]:
        """Return what does not suffice for ``wanted`` beside what is ``taken``, in words; empty: it fits.

        More virtual CPUs than there may be are possible for who has them all.
        """
        both = taken + wanted
        return [
            name
            for name, too_much in (
                ("memory", both.memory > self.memory),
                ("vCPUs", both.vcpus > self.vcpus and taken.vcpus > 0),
                ("machines", both.machines > self.machines),
            )
            if too_much
        ]

    def hold(self, taken: Amount, wanted: Amount) -> bool:
        """Return whether ``wanted`` fits beside what is ``taken``."""
        return not self.exceeded(taken, wanted)

    def __str__(self) -> str:
        limits = (("MiB", self.memory // _MIB, self.memory), ("vCPUs", self.vcpus, self.vcpus))
        words = [f"{number} {unit}" for unit, number, limit in limits if limit != UNLIMITED]
        return ", ".join([*words, *([f"{self.machines} machines"] if self.machines != UNLIMITED else [])])

    def usage(self, taken: Amount) -> str:
        """Return in words how much of what is limited is taken."""
        words = []
        if self.memory != UNLIMITED:
            words.append(f"{mib(taken.memory)} of {mib(self.memory)} MiB")
        if self.vcpus != UNLIMITED:
            words.append(f"{taken.vcpus} of {self.vcpus} vCPUs")
        if self.machines != UNLIMITED:
            words.append(f"{taken.machines} of {self.machines} machines")
        return ", ".join(words)


def added(amounts: Iterable[Amount]) -> Amount:
    """Return all of them together."""
    return sum(amounts, NOTHING)


def default_limits() -> Limits:
    """Return three quarters of the memory that there is, four virtual CPUs for each CPU (8 at least), any machines."""
    numerator, denominator = _SHARE_OF_MEMORY
    cpus = len(os.sched_getaffinity(0))
    return Limits(total() * numerator // denominator, max(_VCPUS_PER_CPU * cpus, _FEWEST_VCPUS))


def mib(size: int) -> int:
    """Return a number of bytes in MiB, rounded up."""
    return -(-size // _MIB)
