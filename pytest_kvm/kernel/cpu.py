"""The processors of a guest, as its kernel sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_kvm.kernel.guest import Guest

# Those that are online have a topology: package, die, core. The ids are unique within what is named before them.
_SCRIPT = """
cat /proc/cpuinfo
for each in /sys/devices/system/cpu/cpu[0-9]*/topology; do
    [ -e $each/core_id ] || continue
    echo "topology: $(cat $each/physical_package_id) $(cat $each/die_id 2>/dev/null || echo 0) $(cat $each/core_id)"
done
"""
# x86 has flags, Arm features, RISC-V extensions.
_FLAGS = re.compile(r"^(?:flags|Features|isa)\s*:(.*)$", re.MULTILINE)
_MODEL = re.compile(r"^(?:model name|Model|cpu model)\s*:\s*(.*)$", re.MULTILINE)
_TOPOLOGY = re.compile(r"^topology: (-?\d+) (-?\d+) (-?\d+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class GuestCPU:
    """The processors that a guest's kernel uses at one moment.

    ``model`` is its name for the first of them ("": it has none), ``flags`` are their features in the kernel's words
    (``sse4_2``, where QEMU's ``cpu=`` says ``sse4.2``), those that all of them have. ``count`` is how many are online,
    in so many ``sockets``, with so many ``cores`` each, with so many ``threads`` each; where they differ, the most.
    """

    model: str
    flags: frozenset[str]
    count: int
    sockets: int
    cores: int
    threads: int


def read_cpu(vm: Guest) -> GuestCPU:
    """Return the processors of a guest; raises CommandError when it does not tell."""
    return parse_cpu(vm.run(_SCRIPT).stdout)


def parse_cpu(text: str) -> GuestCPU:
    """Return what /proc/cpuinfo and lines of ``topology: PACKAGE DIE CORE`` tell."""
    flags = [frozenset(line.split()) for line in _FLAGS.findall(text)]
    model = _MODEL.search(text)
    places = [tuple(map(int, found)) for found in _TOPOLOGY.findall(text)]
    return GuestCPU(
        model=model[1].strip() if model is not None else "",
        flags=frozenset.intersection(*flags) if flags else frozenset(),
        count=len(places) or len(re.findall(r"^processor\s*:", text, re.MULTILINE)),
        sockets=len({package for package, _, _ in places}),
        cores=_most([package for package, _, _ in set(places)]),
        threads=_most(places),
    )


def _most(items: Sequence[object]) -> int:
    return max((items.count(item) for item in items), default=0)
