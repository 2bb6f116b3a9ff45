"""A guest that hangs is told from one that is slow."""

from __future__ import annotations

import re

import pytest

from pytest_kvm import VM, BootTimeout, Drive, VMFactory
from pytest_kvm.machine import machine, progress
from pytest_kvm.machine.progress import Activity
from pytest_kvm.machine.readiness import wait_ready
from pytest_kvm.waiting import Deadline, Usual, Watch

NEVER = re.compile("never printed")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_WINDOW", 1.0)


def test_one_that_waits_for_nothing(vm: VM) -> None:
    with pytest.raises(
        BootTimeout, match=r"within 1\.5 s \(waiting for .* It hangs; in the last 1 s: 0 bytes on the c"
    ):
        wait_ready(vm, NEVER, Deadline(0.5))


def test_one_that_is_busy(vm: VM) -> None:
    process = vm.popen("while :; do :; done")
    with pytest.raises(
        BootTimeout, match=r"within 4 s \(.*It is slow; in the last 1 s: 0 bytes on the console, 0 disk"
    ):
        wait_ready(vm, NEVER, Deadline(1))
    process.kill()


def test_one_that_comes_late(vm: VM) -> None:
    vm.popen("for n in 1 2 3 4 5 6 7 8 9 10; do echo at it >/dev/console; usleep 200000; done; echo now >/dev/console")
    left = wait_ready(vm, re.compile("now"), Deadline(1))
    assert left.seconds is not None
    assert left.seconds <= 3


def test_the_time_that_somebody_gave(vm_factory: VMFactory) -> None:
    vm = vm_factory(timeout=60)
    vm.popen("while :; do :; done")
    with pytest.raises(
        BootTimeout, match=r"within 0\.5 s .*Since it was switched on: [1-9]\d+ bytes on the console, \d+ d"
    ):
        wait_ready(vm, NEVER, Deadline(0.5))


def test_a_boot_that_takes_longer_than_usual(vm_factory: VMFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BOOT_TIMEOUT", 0.75)
    monkeypatch.setattr(progress, "HARD", 100.0)
    assert vm_factory(start="boot").run("echo up").stdout == "up\n"


def test_what_a_machine_does(vm: VM) -> None:
    before = Activity.of(vm)
    vm.run("echo here >/dev/console; for n in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/urandom | md5sum; done")
    done = Activity.of(vm).since(before)
    assert done.console > 4
    assert done.cpu > 0
    assert done.is_progress


def test_disks_count(vm_factory: VMFactory) -> None:
    vm = vm_factory(drives=[Drive(size="8M")])
    before = Activity.of(vm)
    vm.run("dd if=/dev/zero of=/dev/vda bs=1M count=4 && sync")
    assert Activity.of(vm).since(before).disks > 0


def test_a_machine_that_is_off(vm: VM) -> None:
    vm.power_cut()
    before = Activity.of(vm)
    assert not Activity.of(vm).since(before).is_progress


def test_usual_times_are_longer_where_things_take_longer(vm: VM) -> None:
    watch = Watch()
    assert watch.limit(Usual(30)) == 30
    watch.pace = 3
    assert (watch.limit(Usual(30)), watch.limit(30), watch.limit(None)) == (90, 30, None)
    least = 2 if vm.accel.startswith("tcg") else 1
    assert least <= vm.watch.pace <= 8
    assert vm.console.timeout == 30 * vm.watch.pace
