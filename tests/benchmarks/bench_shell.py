"""What a boot and a command cost, against floors of the same run: ``tox -e bench``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from pytest_kvm import VM, VMFactory

ROUNDS = 30
# Inside the guest, without our protocol: what forking, and a shell of its own, cost.
FORK = "for i in $(seq 200); do ( : ); done"
SHELL = "for i in $(seq 200); do setsid sh -c :; done"
NOTHING = "for i in $(seq 200); do :; done"


def median(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def test_boot(vm_factory: VMFactory, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    vm_factory("floor", image=None, machine="none")
    floor = time.perf_counter() - started
    vm = vm_factory()
    assert vm.started is not None
    with capsys.disabled():
        print(f"\nQEMU started until QMP answers   {floor * 1e3:8.1f} ms")
        print(
            f"boot until the shell is ready    {vm.started.seconds * 1e3:8.1f} ms   {vm.started.seconds / floor:6.1f} x"
        )


def test_commands(vm: VM, capsys: pytest.CaptureFixture[str]) -> None:
    vm.ssh.run("true")  # connect
    ssh = median(lambda: vm.ssh.run("true"))
    rows = {
        "true over SSH, connected": ssh,
        "true": median(lambda: vm.run("true")),
        "/bin/true": median(lambda: vm.run("/bin/true")),
        "true with stdin": median(lambda: vm.run("true", input="x")),
    }
    empty = vm.run(NOTHING).seconds
    rows["in the guest: a fork"] = (vm.run(FORK).seconds - empty) / 200
    rows["in the guest: setsid sh -c"] = (vm.run(SHELL).seconds - empty) / 200
    with capsys.disabled():
        print()
        for name, seconds in rows.items():
            print(f"{name:32} {seconds * 1e3:8.2f} ms   {ssh / seconds:6.1f} x as fast as SSH")
