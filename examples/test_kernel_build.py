"""Does a kernel work? Each test runs on every kernel that ``--kvm-kernel`` names, a build tree or ``tiny:bookworm``."""

from __future__ import annotations

import pytest

from pytest_kvm import VM


def test_it_boots(vm: VM) -> None:
    assert vm.run("uname -r").stdout.strip() == vm.kernel.release
    assert not [message for message in vm.dmesg() if message.level in ("emerg", "alert", "crit")]


@pytest.mark.vm_requires(module="virtio_rng")
def test_a_module_comes_and_goes(vm: VM) -> None:
    for _ in range(3):
        vm.modprobe("virtio_rng")
        assert vm.run("ls /sys/bus/virtio/drivers/virtio_rng").stdout
        vm.rmmod("virtio_rng")
    assert vm.kernel.taint == frozenset()


@pytest.mark.vm_requires(config="CONFIG_FTRACE=y")
def test_what_it_traces(vm: VM) -> None:
    with vm.trace_events("sched:sched_process_exec") as trace:
        vm.run("/bin/busybox true")
    assert any("/bin/busybox" in event.text for event in trace.named("sched_process_exec"))
