"""Processors as QEMU's ``-smp`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pytest_kvm.spec.text import split_options
from pytest_kvm.spec.wording import Rejected, expected, expected_type, parser_of, shown, whole_number

# From the outermost to the innermost, as in QEMU's qapi/machine.json, SMPConfiguration.
TOPOLOGY = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")
# Left out, these are 1; sockets, cores and threads are computed by QEMU.
PLAIN = ("drawers", "books", "dies", "clusters", "modules")
SMP_WANTED = "a number of CPUs or QEMU's text such as '4,sockets=1,cores=2,threads=2'"


@dataclass(frozen=True)
class Smp:
    """``cpus`` at start, ``maxcpus`` with those plugged later, and the topology as far as it was given."""

    cpus: int
    maxcpus: int
    drawers: int | None = None
    books: int | None = None
    sockets: int | None = None
    dies: int | None = None
    clusters: int | None = None
    modules: int | None = None
    cores: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        """Return QEMU's text."""
        topology = [f",{key}={getattr(self, key)}" for key in TOPOLOGY if getattr(self, key) is not None]
        return "".join([str(self.cpus), f",maxcpus={self.maxcpus}" if self.maxcpus != self.cpus else "", *topology])


def read_smp(value: int | str) -> Smp:
    """Return the processors; raises Rejected."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(SMP_WANTED, value)
    text = str(value).strip()
    if "=" not in text and "," not in text and whole_number(text) is None:
        raise expected(SMP_WANTED, value)
    given: dict[str, int] = {}
    for key, said in split_options(text, keys=("cpus", "maxcpus", *TOPOLOGY), first="cpus").items():
        number = whole_number(said)
        if number is None:
            raise expected(SMP_WANTED, value, f"{key} is {shown(said)}")
        if number < 1:
            raise Rejected(f"{key} must be at least 1, got {number}")
        given[key] = number
    topology = {key: given[key] for key in TOPOLOGY if key in given}
    maxcpus = given.get("maxcpus", given.get("cpus", prod(topology.values())))
    cpus = given.get("cpus", maxcpus)
    if cpus > maxcpus:
        raise Rejected(f"maxcpus={maxcpus} is less than the {cpus} CPUs at start")
    _check_product(topology, maxcpus, "maxcpus" if "maxcpus" in given else "the CPUs")
    return Smp(cpus, maxcpus, **topology)


def _check_product(topology: dict[str, int], maxcpus: int, limit: str) -> None:
    """Check QEMU's rule: the product of the topology is maxcpus (hw/core/machine-smp.c)."""
    product = prod(topology.values())
    complete = all(key in topology for key in TOPOLOGY if key not in PLAIN)
    if maxcpus != product and (complete or maxcpus % product):
        factors = " * ".join(f"{key} {number}" for key, number in topology.items())
        rule = "must be" if complete else "must divide"
        raise Rejected(f"the product of the topology {rule} {limit}: {factors} = {product}, not {maxcpus}")


parse_smp = parser_of("smp")(read_smp)
