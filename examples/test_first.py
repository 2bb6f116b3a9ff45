"""The common case: one line gives a test a machine of its own."""

from __future__ import annotations

from pytest_kvm import VM


def test_kernel(vm: VM) -> None:
    assert vm.run("uname -s").stdout == "Linux\n"


def test_exit_status(vm: VM) -> None:
    result = vm.run("ls /nowhere", check=False)
    assert result.returncode == 1
    assert "No such file" in result.stderr
