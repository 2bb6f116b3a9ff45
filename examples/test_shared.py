"""One machine for many tests, and two machines in one test."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, VMFactory


@pytest.fixture(scope="session")
def shared_vm(vm_session_factory: VMFactory) -> VM:
    return vm_session_factory(memory="256M")


def test_writes(shared_vm: VM) -> None:
    shared_vm.run("echo kept >/tmp/note")


def test_reads(shared_vm: VM) -> None:
    assert shared_vm.run("echo as it was").stdout == "as it was\n"


@pytest.mark.vm("server", smp=2)
@pytest.mark.vm("client")
@pytest.mark.vm(memory="192M")  # without a name: for both
def test_two(vms: dict[str, VM]) -> None:
    assert vms["server"].run("nproc").stdout == "2\n"
    assert vms["client"].run("nproc").stdout == "1\n"
