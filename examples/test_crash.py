"""A kernel that crashes: what is meant to happen, and what is known."""

from __future__ import annotations

import pytest

from pytest_kvm import VM

# What is written there, the kernel prints as if it came from itself.
WARN = "echo '<4>WARNING: CPU: 0 PID: 1 at drivers/foo.c:12 foo_probe+0x1/0x2' >/dev/kmsg"


def test_panic(vm: VM) -> None:
    with vm.expect_panic("sysrq triggered crash"):
        vm.run("echo c >/proc/sysrq-trigger")
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"
    vm.reset()
    vm.run("true")


def test_warning(vm: VM) -> None:
    with vm.expect_splat("WARNING in foo_probe"):
        vm.run(WARN)


@pytest.mark.vm_allow_splat("WARNING in foo_probe")
def test_known_bug(vm: VM) -> None:
    vm.run(WARN)


@pytest.mark.xfail(reason="foo_probe warns", strict=True)
def test_without_that(vm: VM) -> None:
    vm.run(WARN)


def test_poweroff(vm: VM) -> None:
    with vm.expect_shutdown():
        vm.run("poweroff")
    vm.start()
    vm.run("true")
