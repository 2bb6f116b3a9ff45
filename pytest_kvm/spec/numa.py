"""NUMA nodes of a machine: its memory and CPUs in parts, some nearer to each other than others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.size import read_memory, read_size
from pytest_kvm.spec.smp import TOPOLOGY, Smp, read_smp
from pytest_kvm.spec.values import Check, optional, several, whole
from pytest_kvm.spec.wording import Rejected, expected, expected_type, shown

# QEMU's include/sysemu/numa.h.
MOST_NODES = 128
LOCAL, FARTHEST = 10, 255
_MIB = 1024**2
_RANGE = re.compile("([0-9]{1,6})(?:-([0-9]{1,6}))?")
_CPUS_WANTED = "CPUs such as '0-1' or '0,2-3'"


def read_cpus(value: int | str) -> list[int]:
    """Return the numbers that a list of CPUs has, as the kernel writes it; raises Rejected."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(_CPUS_WANTED, value)
    numbers: list[int] = []
    for part in str(value).split(",") if value != "" else ():
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise expected(_CPUS_WANTED, value)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise Rejected(f"{shown(part.strip())} ends before it begins")
        numbers += range(first, last + 1)
    return numbers


def _cpus(value: object) -> None:
    read_cpus(value)  # type: ignore[arg-type]  # it tells wrong types itself


def _size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type("a size such as '128M' (a number: MiB)", value)
    if read_size(value) % _MIB:
        raise Rejected(f"a node's memory is in whole MiB, got {shown(value)}")


CHECKS: Mapping[str, Check] = {
    "memory": optional(_size),
    "cpus": _cpus,
    "distances": several("distances", "distances=[10, 20]", whole("a distance", LOCAL, FARTHEST)),
}


@checked("NumaNode", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class NumaNode:
    """A NUMA node: the first one that is declared is number 0.

    ``memory`` is its part of the machine's (QEMU's text; a number: MiB; None: it has none), ``cpus`` are the numbers of
    its CPUs, ``"0-1"`` or ``"0,2-3"`` (empty: memory only). ``distances`` is what ACPI's SLIT says of it: to each node
    in order, 10 to itself, more to others, up to 254, and 255 for a node out of reach; either all nodes have them or
    none (then it is 20 to all others).

    Raises SpecError when a value cannot be.
    """

    memory: int | str | None = None
    cpus: int | str = ""
    distances: Sequence[int] = ()

    def __repr__(self) -> str:
        return short_repr(self, implied={})

    def _check(self) -> None:
        check_values("NumaNode", {name: getattr(self, name) for name in CHECKS}, CHECKS)
        if isinstance(self.distances, list):
            object.__setattr__(self, "distances", tuple(self.distances))

    @property
    def size(self) -> int:
        """Its memory, in bytes."""
        return read_size(self.memory) if self.memory is not None else 0

    @property
    def cpu_numbers(self) -> list[int]:
        """The numbers of its CPUs."""
        return read_cpus(self.cpus)


def memory_text(nodes: Sequence[NumaNode]) -> str:
    """Return the memory of all nodes together, as QEMU's text."""
    return f"{sum(node.size for node in nodes) // _MIB}M"


def check_nodes(nodes: Sequence[NumaNode], smp: int | str, memory: int | str | None) -> None:
    """Check that nodes divide the machine's CPUs and memory, and know all distances; raises Rejected.

    QEMU's rules are in its hw/core/numa.c; it only warns of CPUs that are on no node, and Linux gives them to node 0.
    """
    if len(nodes) > MOST_NODES:
        raise Rejected(f"QEMU has {MOST_NODES} nodes at most, these are {len(nodes)}")
    _check_cpus(nodes, read_smp(smp).maxcpus)
    together = sum(node.size for node in nodes)
    if not together:
        raise Rejected("no node has memory")
    if memory is not None and read_memory(memory).size != together:
        raise Rejected(
            f"the nodes have {memory_text(nodes)} together, and the machine has memory={shown(memory)}; "
            "with memory=None it has what they have"
        )
    _check_distances(nodes)


def _check_cpus(nodes: Sequence[NumaNode], count: int) -> None:
    given = Counter(number for node in nodes for number in node.cpu_numbers)
    there = f"smp says {count}, 0 to {count - 1}" if count > 1 else "smp says 1, number 0"
    for number, times in given.items():
        if number >= count:
            raise Rejected(f"there is no CPU {number}: {there}")
        if times > 1:
            raise Rejected(f"CPU {number} is given more than once")
    missing = [number for number in range(count) if number not in given]
    if missing:
        raise Rejected(f"CPU {missing[0]} is on no node: {there}")


def _check_distances(nodes: Sequence[NumaNode]) -> None:
    for number, node in enumerate(nodes):
        row = node.distances
        if not row and not any(other.distances for other in nodes):
            return
        if len(row) != len(nodes):
            raise Rejected(f"node {number} has {len(row)} distances; each of the {len(nodes)} nodes must have one")
        for other, distance in enumerate(row):
            if (distance == LOCAL) != (other == number):
                rule = f"must be {LOCAL}" if other == number else f"must be more than {LOCAL}"
                raise Rejected(f"the distance of node {number} to node {other} {rule}, not {distance}")


def processors(smp: int | str, nodes: Sequence[NumaNode]) -> Smp:
    """Return the processors of a machine, in sockets that are on one node each, unless ``smp`` says how they are.

    CPUs of one socket share a cache, and Linux complains when such are on several nodes (arch/x86/kernel/smpboot.c,
    topology_sane); QEMU's own choice is a single socket.
    """
    given = read_smp(smp)
    if not nodes or any(getattr(given, level) is not None for level in TOPOLOGY):
        return given
    home = {cpu: number for number, node in enumerate(nodes) for cpu in node.cpu_numbers}
    count = given.maxcpus
    fitting = (
        size
        for size in range(count, 0, -1)
        if count % size == 0
        and all(len({home.get(first + cpu) for cpu in range(size)}) == 1 for first in range(0, count, size))
    )
    return replace(given, sockets=count // next(fitting))
