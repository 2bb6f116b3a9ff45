"""What QEMU is told about a machine's memory: how much it is, where it is, and which nodes it is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_kvm.qemu.plan import Plan, Ram
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.size import parse_memory
from pytest_kvm.spec.vm import VMSpec

# A saved machine is only loaded into one whose RAM has the same name; that of a node has its number behind it.
RAM = "ram"


def machine_settings(plan: Plan) -> str:
    """Return what is added to the ``-machine`` text; nodes name their backends themselves."""
    return f",memory-backend={RAM}" if plan.ram and not plan.spec.numa else ""


def memory_arguments(plan: Plan) -> Iterator[str]:
    """Yield the size of the memory, its backends, and the nodes."""
    yield from ("-m", _size(plan.spec.memory))
    ram = plan.ram or (Ram() if plan.spec.numa else None)
    if ram is not None:
        for number, (name, size) in enumerate(backends(plan.spec).items()):
            yield from ("-object", _backend(ram, number, name, size))
    yield from _nodes(plan.spec.numa)


def backends(spec: VMSpec) -> Mapping[str, int]:
    """Return the backends of a machine's memory, by their names, each with its size in bytes.

    Each node has one of its own: newer machine types know no other way (QEMU's docs/about/removed-features.rst).
    """
    if spec.numa:
        return {_name(number): node.size for number, node in enumerate(spec.numa) if node.size}
    return {RAM: parse_memory(spec.memory).size}


def _name(node: int) -> str:
    return f"{RAM}{node}"


def _size(memory: int | str | None) -> str:
    parsed = parse_memory(memory)
    text = f"{parsed.size // 1024**2}M" if parsed.size % 1024**2 == 0 else f"{parsed.size}B"
    return f"{text},slots={parsed.slots},maxmem={parsed.maxmem}B" if parsed.maxmem is not None else text


def _backend(ram: Ram, number: int, name: str, size: int) -> str:
    settings: dict[str, object] = {"id": name, "size": size}
    if not ram.descriptors and ram.shared:
        return option("memory-backend-memfd", {**settings, "share": True})
    if not ram.descriptors:
        return option("memory-backend-ram", settings)
    settings |= {"mem-path": f"/proc/self/fd/{ram.descriptors[number]}", "share": ram.shared}
    if ram.protected:
        settings |= {"readonly": True, "rom": False}
    return option("memory-backend-file", settings)


def _nodes(nodes: Sequence[NumaNode]) -> Iterator[str]:
    for number, node in enumerate(nodes):
        cpus = "".join(f",cpus={first}-{last}" for first, last in _ranges(node.cpu_numbers))
        yield from ("-numa", option("node", {"nodeid": number, "memdev": _name(number) if node.size else None}) + cpus)
    for source, node in enumerate(nodes):
        for target, distance in enumerate(node.distances):
            if target != source:
                yield from ("-numa", option("dist", {"src": source, "dst": target, "val": distance}))


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of numbers that follow one another."""
    ordered = sorted(numbers)
    first = 0
    for position, number in enumerate(ordered):
        if ordered[position + 1 : position + 2] != [number + 1]:
            yield ordered[first], number
            first = position + 1
