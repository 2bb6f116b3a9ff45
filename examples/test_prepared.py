"""Work that is done once, and many tests that begin where it ended."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, Snapshot, VMFactory


@pytest.fixture(scope="session")
def prepared(vm_session_factory: VMFactory) -> Snapshot:
    vm = vm_session_factory()
    vm.run("echo 'a minute of work' >/root/done")
    return vm.snapshot()


@pytest.mark.parametrize("number", range(3))
def test_each_has_its_own(vm_factory: VMFactory, prepared: Snapshot, number: int) -> None:
    vm = vm_factory(snapshot=prepared)
    assert vm.run("cat /root/done; rm /root/done").stdout == "a minute of work\n"


def test_there_and_back(vm: VM) -> None:
    before = vm.snapshot()
    vm.run("rm -rf /bin /etc /root")
    vm.restore(before)
    assert vm.run("ls /etc/passwd").stdout == "/etc/passwd\n"
