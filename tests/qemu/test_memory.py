"""What QEMU is told about memory and its nodes."""

from __future__ import annotations

import pytest

from pytest_kvm.qemu.memory import machine_settings, memory_arguments
from pytest_kvm.qemu.plan import Ram
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.plans import plan, words

NODES = [
    NumaNode(memory="128M", cpus="0,2-3", distances=[10, 21, 30]),
    NumaNode(cpus=1, distances=[21, 10, 31]),
    NumaNode(memory="64M", distances=[30, 32, 10]),
]


@pytest.mark.parametrize(
    ("ram", "backend"),
    [(None, "memory-backend-ram"), (Ram(), "memory-backend-ram"), (Ram(shared=True), "memory-backend-memfd")],
)
def test_nodes_have_backends_of_their_own(ram: Ram | None, backend: str) -> None:
    planned = plan(VMSpec(numa=NODES, smp=4, memory="192M"), ram=ram)
    share = ",share=on" if ram is not None and ram.shared else ""
    assert list(memory_arguments(planned)) == words(
        "-m 192M",
        f"-object {backend},id=ram0,size=134217728{share}",
        f"-object {backend},id=ram2,size=67108864{share}",
        "-numa node,nodeid=0,memdev=ram0,cpus=0-0,cpus=2-3",
        "-numa node,nodeid=1,cpus=1-1",
        "-numa node,nodeid=2,memdev=ram2",
        "-numa dist,src=0,dst=1,val=21 -numa dist,src=0,dst=2,val=30",
        "-numa dist,src=1,dst=0,val=21 -numa dist,src=1,dst=2,val=31",
        "-numa dist,src=2,dst=0,val=30 -numa dist,src=2,dst=1,val=32",
    )
    assert machine_settings(planned) == ""


def test_each_backend_has_a_file_of_its_own() -> None:
    planned = plan(VMSpec(numa=NODES, smp=4, memory="192M"), ram=Ram([14, 15], protected=True))
    assert [word for word in memory_arguments(planned) if word.startswith("memory-backend")] == [
        "memory-backend-file,id=ram0,size=134217728,mem-path=/proc/self/fd/14,share=off,readonly=on,rom=off",
        "memory-backend-file,id=ram2,size=67108864,mem-path=/proc/self/fd/15,share=off,readonly=on,rom=off",
    ]


def test_one_backend_without_nodes() -> None:
    planned = plan(VMSpec(memory="192M"), ram=Ram())
    assert list(memory_arguments(planned)) == words("-m 192M -object memory-backend-ram,id=ram,size=201326592")
    assert machine_settings(planned) == ",memory-backend=ram"
