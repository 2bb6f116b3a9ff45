"""A clone is what a machine is that has booted a moment ago."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import time
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from pytest_kvm import VM, Drive, FromFixture, SpecError, VMFactory, VMSpec
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings

RANDOM = "head -c 32 /dev/urandom | hexdump -v -e '32/1 \"%02x\"'"
UUID = "cat /proc/sys/kernel/random/uuid"


def kind(vm: VM) -> tuple[str, str]:
    assert vm.started is not None
    assert vm.started.seconds > 0
    return vm.started.kind, vm.started.reason


def clock(vm: VM) -> float:
    """Return how far the guest's clock is from ours, in seconds: what the way there and back cannot explain."""
    before = time.time()
    guest = float(
        vm.run("adjtimex | awk '/time.tv_sec/ {s=$2} /time.tv_usec/ {u=$2} END {printf \"%d.%06d\", s, u}'").stdout
    )
    after = time.time()
    return max(before - guest, guest - after, 0.0)


# Each test below has a machine of its own; they share a template.


def test_it_is_a_clone_by_default(vm: VM) -> None:
    assert kind(vm) == ("clone", "")


def test_its_clock_is_right(vm: VM) -> None:
    assert clock(vm) < 0.2
    # Emulated, a guest's second can be longer than the host's, but not by much.
    idle = float(vm.run("cut -d' ' -f1 /proc/uptime").stdout)
    vm.run("sleep 1")
    assert 0.9 < float(vm.run("cut -d' ' -f1 /proc/uptime").stdout) - idle < 60


def test_no_two_have_the_same_random_numbers(vm_factory: VMFactory) -> None:
    machines = [vm_factory() for _ in range(3)]
    assert {kind(vm) for vm in machines} == {("clone", "")}
    numbers = [vm.run(f"{RANDOM}; {UUID}").stdout for vm in machines]
    assert len(set(numbers)) == len(machines)


@pytest.mark.vm(extras=[])
def test_nor_without_a_vmgenid(vm_factory: VMFactory) -> None:
    machines = [vm_factory() for _ in range(2)]
    assert {kind(vm) for vm in machines} == {("clone", "")}
    assert machines[0].run("ls /sys/bus/acpi/drivers/vmgenid/ | grep -c QEMU", check=False).stdout == "0\n"
    assert machines[0].run(RANDOM).stdout != machines[1].run(RANDOM).stdout


@pytest.mark.vm(hostfwd=[2222])
def test_no_two_make_the_same_key(vm_factory: VMFactory) -> None:
    keys = set()
    for vm in (vm_factory(), vm_factory()):
        vm.run("rm -f /etc/dropbear/*_host_key; dropbear -R -p 2222")  # which makes one at the first connection
        with contextlib.closing(paramiko.Transport(socket.create_connection(vm.forwarded(2222)))) as transport:
            transport.start_client(timeout=60)
            keys.add(transport.get_remote_server_key().asbytes())
    assert len(keys) == 2


def test_nothing_of_it_gets_into_another(vm_factory: VMFactory) -> None:
    first, second = vm_factory("first"), vm_factory("second")
    first.run("echo here >/tmp/mark; hostname first; date -s 2001-01-01; ip addr add 192.0.2.1/32 dev lo")
    assert second.run("ls /tmp/mark; hostname; ip addr show dev lo | grep -c 192.0.2", check=1).stdout == "tiny\n0\n"
    assert clock(second) < 0.2
    third = vm_factory("third")
    assert third.run("ls /tmp/mark", check=1).stdout == ""
    assert third.run("hostname third; hostname").stdout == "third\n"


def test_a_balloon_takes_memory_of_its_own_machine_only(vm_factory: VMFactory) -> None:
    vm = vm_factory()
    with vm.qmp.expect_event("BALLOON_CHANGE", timeout=60):
        vm.qmp.execute("balloon", {"value": 160 << 20})
    vm.run("true")
    assert vm_factory().run("find / -xdev -type f -exec cat {} + | wc -c").stdout == (
        vm_factory().run("find / -xdev -type f -exec cat {} + | wc -c").stdout
    )


@pytest.mark.vm(drives=[Drive(size="8M"), Drive(size="8M", format="qcow2", interface="scsi")])
def test_disks_are_its_own(vm_factory: VMFactory) -> None:
    first, second = vm_factory(), vm_factory()
    for vm in (first, second):
        assert kind(vm) == ("clone", "")
        assert vm.run("cat /dev/vda /dev/sda | tr -d '\\0' | wc -c").stdout == "0\n"
        vm.run("echo mine | dd of=/dev/vda conv=fsync; echo mine | dd of=/dev/sda conv=fsync")
    folder = Path(first.qmp.execute("query-block")[0]["inserted"]["file"]).parent
    first.shutdown()
    first.start()
    assert kind(first) == ("boot", "")
    assert first.run("head -c 4 /dev/vda; head -c 4 /dev/sda").stdout == "minemine"
    first.close()
    assert not folder.exists()
    assert second.run("head -c 4 /dev/vda").stdout == "mine"


@pytest.mark.vm(drives=[Drive(FromFixture("given"), format="raw", serial="late"), Drive(size="2M", id="mine")])
def test_given_drives_are_plugged_in(vm: VM, given: Path) -> None:
    assert kind(vm) == ("clone", "")
    assert vm.run("head -c 5 /dev/vda; cat /sys/block/vda/serial; cat /sys/block/vdb/size").stdout == "givenlate4096\n"
    vm.run("echo other | dd of=/dev/vda conv=fsync")
    assert given.read_bytes().startswith(b"given")
    vm.reboot()
    assert vm.run("head -c 5 /dev/vda; cat /sys/block/vdb/size").stdout == "other4096\n"


def test_the_console_begins_with_the_boot(vm: VM) -> None:
    vm.console.expect("login: ", timeout=0)
    vm.console.login()
    assert vm.console.run("echo $((6 * 7))").stdout == "42\n"
    log = (vm._folder / "console.log").read_text()
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{6} tiny login: ", log, re.MULTILINE)
    assert "echo $((6 * 7))" in log


def test_ssh_at_once(vm: VM) -> None:
    assert vm.ssh.run("echo over ssh").stdout == "over ssh\n"


@pytest.mark.vm(hostfwd=[8080], internet=True)
def test_forwards_and_internet_are_its_own(vm: VM, vm_factory: VMFactory) -> None:
    host, port = vm.forwarded(8080)
    assert host == "127.0.0.1"
    with pytest.raises(SpecError, match="guest port 8080/tcp is not forwarded"):
        vm_factory("closed", hostfwd=[], internet=False).forwarded(8080)
    assert vm_factory("open", hostfwd=[8080]).forwarded(8080)[1] != port


def test_it_survives_reboot_and_reset(vm: VM) -> None:
    vm.run("touch /tmp/here")
    vm.reboot()
    assert vm.run("ls /tmp/here", check=1).stdout == ""
    vm.reset()
    assert vm.ssh.run("echo alive").stdout == "alive\n"


@pytest.mark.parametrize("machine", [pytest.param(m, marks=pytest.mark.vm(machine=m)) for m in ("pc", "microvm")])
def test_other_machine_types(vm: VM, machine: str) -> None:
    assert kind(vm) == ("clone", "")
    assert clock(vm) < 0.2


@pytest.mark.vm(smp=2, memory="256M,slots=2,maxmem=512M", ready="ssh")
def test_two_processors(vm: VM) -> None:
    assert kind(vm) == ("clone", "")
    assert vm.run("nproc").stdout == "2\n"
    assert clock(vm) < 0.2


# What is booted, and why.


@pytest.mark.vm(start="boot")
def test_a_boot_that_was_asked_for(vm: VM) -> None:
    assert kind(vm) == ("boot", "")


@pytest.mark.vm(args=["-boot", "order=c"])
def test_a_boot_and_its_reason(vm: VM, caplog: pytest.LogCaptureFixture, vm_factory: VMFactory) -> None:
    reason = "args=['-boot', 'order=c'] is passed to QEMU unread: nobody knows whether a clone could have it"
    assert kind(vm) == ("boot", reason)
    caplog.set_level(logging.INFO, "pytest_kvm")
    vm_factory("again", image=None)
    assert caplog.messages == [f"VM 'again' is booted: {reason}"]


def test_a_clone_that_was_asked_for_and_cannot_be(vm_factory: VMFactory, given: Path) -> None:
    with pytest.raises(SpecError, match=r"vm\(start='clone'\): the machine cannot be cloned: drive 'disk0' writes to"):
        vm_factory(start="clone", drives=[Drive(given, format="raw", interface="ide", snapshot=False)])


@pytest.mark.vm(drives=[Drive(size="8M", interface="nvme")])
def test_what_qemu_cannot_save(vm: VM, caplog: pytest.LogCaptureFixture, vm_factory: VMFactory) -> None:
    reason = "QEMU cannot save it: non-migratable device: "
    assert kind(vm)[0] == "boot"
    assert kind(vm)[1].startswith(reason)
    with pytest.raises(Exception, match=rf"vm\(start='clone'\): VM 'vm2' cannot be cloned: {reason}"):
        vm_factory(start="clone")


@pytest.mark.vm(image=None)
def test_an_empty_machine_boots(vm: VM, vm_factory: VMFactory) -> None:
    assert kind(vm) == ("boot", "image=None: whatever is tested there, its boot is likely to be part of it")
    assert kind(vm_factory(start="clone")) == ("clone", "")


def test_resume_commands_run_in_each() -> None:
    image = replace(tiny_image(), resume=("echo {now} >>/run/resumed", "hostname cloned"))
    with contextlib.closing(Launcher(Settings())) as launcher:
        for _ in range(2):
            with contextlib.closing(launcher.create(VMSpec(accel="tcg", image=image))) as vm:
                hostname, *times = vm.run("hostname; cat /run/resumed").stdout.split()
                assert hostname == "cloned"
                assert [abs(float(each) - time.time()) < 60 for each in times] == [True]


# Time that has passed.


def test_a_jump_of_the_clock_wakes_nobody(vm: VM) -> None:
    vm.run("date -s @$(($(date +%s) - 1000000))")
    sleeper = vm.popen("sleep 5000")
    vm.run("dmesg -c >/dev/null")
    state = vm.snapshot()
    vm.restore(state)
    assert kind(vm) == ("clone", "")
    assert clock(vm) < 0.2
    assert vm.run("pidof sleep | wc -w").stdout == "1\n"
    assert vm.run("dmesg | grep -ciE 'lockup|stall|hung|unstable|watchdog'", check=False).stdout == "0\n"
    assert sleeper.job.lost == "the machine was put back to a snapshot"


def test_a_clone_pays_for_its_own_changes_only(vm_factory: VMFactory) -> None:
    vm = vm_factory(memory="512M")
    vm.run("true")
    rollup = Path(f"/proc/{vm.pid}/smaps_rollup").read_text()
    private = sum(int(number) for number in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))
    assert private < 300 * 1024
