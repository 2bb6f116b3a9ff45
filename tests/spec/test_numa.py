"""NUMA nodes: what is accepted, what is refused and how it is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.numa import NumaNode, memory_text, processors
from pytest_kvm.spec.vm import VMSpec

HALF = NumaNode(memory="128M", cpus=0)
OTHER = NumaNode(memory="128M", cpus=1)


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({}, []),
        ({"cpus": 3}, [3]),
        ({"cpus": "0"}, [0]),
        ({"cpus": "0,2-4"}, [0, 2, 3, 4]),
        ({"cpus": " 1 , 2 "}, [1, 2]),
    ],
)
def test_numbers(fields: dict[str, object], numbers: list[int]) -> None:
    assert NumaNode(**fields).cpu_numbers == numbers  # type: ignore[arg-type]  # a test's own words


WRONG_NODE: list[tuple[dict[str, object], str]] = [
    ({"cpu": 1}, "NumaNode(cpu=…): unknown keyword 'cpu'; did you mean 'cpus'?"),
    ({"cpus": [1]}, "NumaNode(cpus=[1]): expected CPUs such as '0-1' or '0,2-3', got [1] (list)"),
    ({"cpus": "1-"}, "NumaNode(cpus='1-'): expected CPUs such as '0-1' or '0,2-3', got '1-'"),
    ({"cpus": -1}, "NumaNode(cpus=-1): expected CPUs such as '0-1' or '0,2-3', got -1"),
    ({"cpus": "3-1"}, "NumaNode(cpus='3-1'): '3-1' ends before it begins"),
    (
        {"memory": "many"},
        "NumaNode(memory='many'): expected a size such as '512M' or '1.5G' (without a suffix: M), got 'many'",
    ),
    ({"memory": "1000k"}, "NumaNode(memory='1000k'): a node's memory is in whole MiB, got '1000k'"),
    ({"distances": [9]}, "NumaNode(distances=[9]): expected a distance from 10 to 255, got 9"),
    ({"distances": 10}, "NumaNode(distances=10): expected a list of distances, got 10 (int); write distances=[10, 20]"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG_NODE)
def test_wrong_nodes(fields: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        NumaNode(**fields)  # type: ignore[arg-type]  # wrong on purpose
    assert str(caught.value) == text


WRONG_VM: list[tuple[dict[str, object], str]] = [
    (
        {"numa": HALF},
        "vm(numa=NumaNode(memory='128M', cpus=0)): expected a list of NumaNode(...), got "
        "NumaNode(memory='128M', cpus=0) (NumaNode); write numa=[NumaNode(memory='128M', cpus=0), …]",
    ),
    ({"numa": ["128M"]}, "vm(numa=['128M']): expected NumaNode(...), got '128M' (str)"),
    ({"numa": [HALF, OTHER]}, "vm(numa=…): there is no CPU 1: smp says 1, number 0"),
    ({"numa": [HALF, HALF], "smp": 2}, "vm(numa=…): CPU 0 is given more than once"),
    ({"numa": [HALF, OTHER], "smp": "2,maxcpus=4"}, "vm(numa=…): CPU 2 is on no node: smp says 4, 0 to 3"),
    ({"numa": [NumaNode(cpus=0)]}, "vm(numa=…): no node has memory"),
    (
        {"numa": [HALF, OTHER], "smp": 2, "memory": "512M"},
        "vm(numa=…): the nodes have 256M together, and the machine has memory='512M'; with memory=None it has what "
        "they have",
    ),
    (
        {"numa": [NumaNode(memory=64, cpus=0, distances=[10, 20]), NumaNode(memory=64)]},
        "vm(numa=…): node 1 has 0 distances; each of the 2 nodes must have one",
    ),
    (
        {"numa": [NumaNode(memory=64, cpus=0, distances=[20])]},
        "vm(numa=…): the distance of node 0 to node 0 must be 10, not 20",
    ),
    (
        {"numa": [NumaNode(memory=64, cpus=0, distances=[10, 10]), NumaNode(memory=64, distances=[20, 10])]},
        "vm(numa=…): the distance of node 0 to node 1 must be more than 10, not 10",
    ),
    ({"numa": [NumaNode(memory=64, cpus=0)] * 129}, "vm(numa=…): QEMU has 128 nodes at most, these are 129"),
    (
        {"numa": [HALF], "machine": "microvm"},
        "vm(machine='microvm', numa=[NumaNode(memory='128M', cpus=0)]): it has no ACPI tables that would tell a guest "
        "of nodes; use q35 or pc",
    ),
]


@pytest.mark.parametrize(("fields", "text"), WRONG_VM)
def test_wrong_machines(fields: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        VMSpec(**fields)  # type: ignore[arg-type]  # wrong on purpose
    assert str(caught.value) == text


def test_what_fits() -> None:
    nodes = [HALF, OTHER, NumaNode(memory=64)]
    spec = VMSpec(numa=nodes, smp=2, memory="320M,slots=2,maxmem=1G")
    assert spec.numa == tuple(nodes)
    assert memory_text(nodes) == "320M"


@pytest.mark.parametrize(
    ("smp", "cpus", "text"),
    [
        (4, ["0-1", "2-3"], "4,sockets=2"),
        (4, ["0-3", ""], "4,sockets=1"),
        (4, ["0,2", "1,3"], "4,sockets=4"),
        (3, ["0-1", "2"], "3,sockets=3"),
        (6, ["0-3", "4-5"], "6,sockets=3"),
        ("2,maxcpus=4", ["0-1", "2-3"], "2,maxcpus=4,sockets=2"),
        ("4,cores=4", ["0-1", "2-3"], "4,cores=4"),
        (4, [], "4"),
    ],
)
def test_sockets_follow_nodes(smp: int | str, cpus: Sequence[str], text: str) -> None:
    assert str(processors(smp, [NumaNode(memory=64, cpus=each) for each in cpus])) == text
