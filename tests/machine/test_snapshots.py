"""Snapshots of the user's: to go back to, and for others to begin with."""

from __future__ import annotations

import re
import threading

import pytest

from pytest_kvm import VM, Drive, FromFixture, GuestPanic, MachineError, QEMUExited, ShellLost, SpecError, VMFactory
from tests.machine.test_clones import RANDOM, clock, kind


def test_back_to_where_it_was(vm: VM) -> None:
    vm.run("echo before >/tmp/note")
    state = vm.snapshot()
    assert repr(state) == "<Snapshot of VM 'vm'>"
    assert clock(vm) < 0.2
    assert vm.run("echo after >/tmp/note; cat /tmp/note").stdout == "after\n"
    numbers = [vm.run(RANDOM).stdout]
    for _ in range(2):
        vm.restore(state)
        assert kind(vm) == ("clone", "")
        assert vm.run("cat /tmp/note").stdout == "before\n"
        assert clock(vm) < 0.2
        assert vm.ssh.run("echo over ssh").stdout == "over ssh\n"
        numbers.append(vm.run(RANDOM).stdout)
    assert len(set(numbers)) == 3


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_disks_go_back_too(vm: VM) -> None:
    vm.run("mke2fs -q /dev/vda && mount -t ext2 /dev/vda /mnt && echo one >/mnt/file")
    first = vm.snapshot()
    vm.run("echo two >/mnt/file")
    second = vm.snapshot()
    vm.run("umount /mnt; dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync")
    vm.restore(second)
    assert vm.run("cat /mnt/file").stdout == "two\n"
    vm.restore(first)
    assert vm.run("cat /mnt/file").stdout == "one\n"
    vm.run("umount /mnt")
    vm.shutdown()
    vm.start()
    assert kind(vm) == ("boot", "")
    assert vm.run("mount -t ext2 /dev/vda /mnt; cat /mnt/file").stdout == "one\n"


@pytest.mark.vm(drives=[Drive(FromFixture("given"), format="raw"), Drive(FromFixture("given"), format="raw")])
def test_drives_that_were_plugged_in(vm: VM, vm_factory: VMFactory) -> None:
    vm.run("echo OTHER | dd of=/dev/vda conv=fsync")
    state = vm.snapshot()
    vm.run("echo again | dd of=/dev/vda conv=fsync")
    vm.restore(state)
    further = vm_factory(snapshot=state)
    for machine in (vm, further):
        assert machine.run("head -c 5 /dev/vda; head -c 5 /dev/vdb").stdout == "OTHERgiven"
    vm.reboot()
    assert vm.run("head -c 5 /dev/vda; head -c 5 /dev/vdb").stdout == "OTHERgiven"


def test_further_machines_begin_with_it(vm_factory: VMFactory) -> None:
    base = vm_factory("base", hostfwd=[8080])
    base.run("hostname prepared; echo work >/root/done")
    state = base.snapshot()
    machines = [vm_factory(snapshot=state) for _ in range(3)]
    machines.append(vm_factory("named", snapshot=state, hostfwd=[9090], timeout=60))
    assert [vm.name for vm in machines] == ["base2", "base3", "base4", "named"]
    for vm in machines:
        assert kind(vm) == ("clone", "")
        assert vm.run("hostname; cat /root/done").stdout == "prepared\nwork\n"
    assert machines[0].forwarded(8080) != base.forwarded(8080)
    assert machines[3].forwarded(9090)
    assert len({vm.run(RANDOM).stdout for vm in machines}) == 4
    machines[0].run("rm /root/done")
    assert base.run("cat /root/done").stdout == "work\n"


@pytest.mark.slow
def test_a_snapshot_of_a_snapshots_machine(vm_factory: VMFactory) -> None:
    base = vm_factory("base", drives=[Drive(size="4M")])
    base.run("echo 1 | dd of=/dev/vda conv=fsync")
    second = vm_factory(snapshot=base.snapshot())
    second.run("echo 2 | dd of=/dev/vda seek=1 conv=fsync")
    third = vm_factory(snapshot=second.snapshot())
    assert third.run("tr -d '\\0' </dev/vda").stdout == "1\n2\n"


def test_what_was_running_goes_on(vm: VM) -> None:
    endless = vm.popen("while :; do date +%s >/tmp/now; usleep 10000; done")
    vm.run("until [ -s /tmp/now ]; do usleep 10000; done")
    state = vm.snapshot()
    assert endless.poll() is None
    vm.restore(state)
    with pytest.raises(ShellLost, match="the machine was put back to a snapshot"):
        endless.wait(timeout=60)
    assert vm.run("rm /tmp/now; until [ -s /tmp/now ]; do usleep 10000; done; echo goes on").stdout == "goes on\n"
    vm.run("echo several; true")
    assert clock(vm) < 0.2


def test_while_commands_come_and_go(vm: VM) -> None:
    stop = threading.Event()
    results: list[str] = []

    def work() -> None:
        while not stop.is_set():
            results.append(vm.run("echo same").stdout)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    states = [vm.snapshot() for _ in range(3)]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(results) == {"same\n"}
    for state in states:
        vm.restore(state)
        assert [vm.run(f"echo {n}").stdout for n in range(8)] == [f"{n}\n" for n in range(8)]


def test_a_paused_machine_stays_paused(vm: VM) -> None:
    vm.pause()
    states = [vm.snapshot(), vm.snapshot()]
    assert not vm.qmp.execute("query-status")["running"]
    vm.resume()
    assert vm.run("echo awake").stdout == "awake\n"
    vm.restore(states[1])
    assert vm.run("echo as well").stdout == "as well\n"


def test_a_broken_machine_is_mended(vm: VM) -> None:
    state = vm.snapshot()
    with vm.expect_panic(), pytest.raises(GuestPanic):
        vm.run("echo c >/proc/sysrq-trigger; sleep 600", timeout=120)
    with pytest.raises(GuestPanic):
        vm.snapshot()
    vm.restore(state)
    assert vm.broken is None
    assert vm.run("echo alive").stdout == "alive\n"
    vm.power_cut()
    with pytest.raises(QEMUExited):
        vm.snapshot()
    vm.restore(state)
    assert vm.run("echo again").stdout == "again\n"


def test_the_console_is_where_it_was(vm: VM) -> None:
    vm.console.login()
    vm.console.run("kept=here")
    state = vm.snapshot()
    vm.console.sendline("exit")
    vm.console.expect("login: ")
    vm.restore(state)
    assert vm.console.run("echo $kept").stdout == "here\n"


def test_one_that_is_not_started_yet(vm_factory: VMFactory) -> None:
    state = vm_factory("base").snapshot()
    vm = vm_factory("base2", autostart=False)
    with pytest.raises(QEMUExited, match="is off"):
        vm.snapshot()
    vm.restore(state)
    vm.run("true")
    vm.power_cut()
    vm.start()
    assert kind(vm) == ("boot", "")


def test_what_cannot_be(vm_factory: VMFactory) -> None:
    base = vm_factory("base")
    state = base.snapshot()
    with pytest.raises(SpecError, match=r"the snapshot is of VM 'base', which was declared otherwise"):
        vm_factory("larger", memory="512M").restore(state)
    with pytest.raises(
        SpecError, match=r"vm\(memory=…, snapshot=…\): a snapshot's machine is what it was; only hostfwd"
    ):
        vm_factory(snapshot=state, memory="512M")
    with pytest.raises(SpecError, match=r"no snapshot of a machine with args="):
        vm_factory("unread", args=["-boot", "order=c"]).snapshot()
    other = vm_factory("other")
    base.close()
    assert repr(state) == "<Snapshot of VM 'base' (ended)>"
    with pytest.raises(MachineError, match="VM 'other': the snapshot has ended with its machine, VM 'base'"):
        other.restore(state)
    assert not other.running
    other.start()
    assert other.run("echo works").stdout == "works\n"
    other.close()
    with pytest.raises(MachineError, match="VM 'other' has ended with its fixture"):
        other.restore(state)


@pytest.mark.vm(drives=[Drive(size="4M", interface="nvme")])
def test_what_qemu_cannot_save(vm: VM) -> None:
    with pytest.raises(MachineError, match=re.escape("VM 'vm' cannot be saved: ")):
        vm.snapshot()
    assert vm.run("echo works").stdout == "works\n"
