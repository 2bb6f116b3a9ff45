"""What a command costs, against SSH and against what forking costs inside the guest."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_kvm import VM
from tests.benchmarks.conftest import Table

ROUNDS = 30
# Inside the guest, without our protocol: what forking, and a shell of its own, cost.
FORK = "for i in $(seq 200); do ( : ); done"
SHELL = "for i in $(seq 200); do setsid sh -c :; done"
NOTHING = "for i in $(seq 200); do :; done"


def each(work: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def test_commands(vm: VM, table: Table) -> None:
    vm.ssh.run("true")  # connect
    table.add("true over SSH, connected", each(lambda: vm.ssh.run("true")))
    table.add("true", each(lambda: vm.run("true")), "true over SSH, connected")
    table.add("/bin/true", each(lambda: vm.run("/bin/true")), "true over SSH, connected")
    table.add("true with stdin", each(lambda: vm.run("true", input="x")), "true over SSH, connected")
    empty = vm.run(NOTHING).seconds
    table.add("in the guest: a fork", [(vm.run(FORK).seconds - empty) / 200])
    table.add("in the guest: setsid sh -c", [(vm.run(SHELL).seconds - empty) / 200])
