"""Starting, stopping, breaking and ending machines."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from pytest_kvm import (
    VM,
    BootTimeout,
    CommandTimeout,
    Drive,
    GuestPanic,
    LaunchError,
    QEMUExited,
    QMPError,
    ShellLost,
    SpecError,
    VMFactory,
    WaitTimeout,
)


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_off_and_on_again(vm: VM) -> None:
    vm.start()  # is on already
    vm.run("printf kept | dd of=/dev/vda && sync; mkdir /tmp/gone")
    first = vm.pid
    vm.shutdown()
    vm.shutdown()  # is off already
    assert not vm.running
    assert vm.broken is None
    with pytest.raises(QEMUExited, match=r"VM 'vm' is off; vm.start\(\) switches it on"):
        vm.run("true")
    with pytest.raises(QEMUExited, match="is off"):
        vm.qmp.execute("query-status")
    vm.start()
    assert vm.started is not None
    assert (vm.started.kind, vm.started.reason) == ("boot", "")
    assert vm.pid != first
    assert vm.run("head -c 4 /dev/vda; ls -d /tmp/gone", check=1).stdout == "kept"
    assert vm.ssh.run("echo over ssh").stdout == "over ssh\n"


@pytest.mark.vm(hostfwd=[8080])
def test_reboot_and_reset(vm: VM) -> None:
    port = vm.forwarded(8080)
    with vm.expect_reboot(), pytest.raises(ShellLost, match="the machine was reset"):
        vm.run("touch /tmp/here; reboot -f; sleep 60")
    assert vm.run("ls /tmp/here", check=1).stdout == ""  # it waited until the guest was up again
    vm.ssh.run("touch /tmp/here")
    vm.reboot()
    assert vm.ssh.run("ls /tmp/here", check=1).stdout == ""
    vm.pause()
    vm.reset(wait=False)
    assert vm.forwarded(8080) == port
    vm.popen("true").wait(timeout=60)


def test_guest_powers_off(vm: VM) -> None:
    vm.run("poweroff")
    vm.wait_for_shutdown()
    assert not vm.running


@pytest.mark.vm(image=None)
def test_wait_for_shutdown_that_does_not_come(vm: VM) -> None:
    with pytest.raises(WaitTimeout, match=r"VM 'vm' did not power off within 0\.1 s"):
        vm.wait_for_shutdown(timeout=0.1)
    assert vm.running


def test_power_button(vm: VM) -> None:
    vm.qmp.execute("system_powerdown")
    vm.wait_for_shutdown()


def test_panic_ends_the_wait(vm: VM) -> None:
    told = r"VM 'vm': the guest's kernel panicked: sysrq triggered crash\nThe guest printed:\n\[.*Kernel panic - not"
    with vm.expect_panic("sysrq triggered crash"), pytest.raises(GuestPanic, match=told) as panic:
        vm.run("echo c >/proc/sysrq-trigger; sleep 600", timeout=120)
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"
    assert (panic.value.kind, panic.value.title) == ("panic", "panic: sysrq triggered crash")
    assert "sysrq_handle_crash" in panic.value.trace
    assert "panicked" in str(vm.broken)
    with pytest.raises(GuestPanic):
        vm.run("true")
    vm.reset()
    assert vm.run("echo alive").stdout == "alive\n"


def test_panic_ends_ssh_and_shutdown(vm: VM) -> None:
    with vm.expect_panic(), pytest.raises(GuestPanic):
        vm.ssh.run("echo c >/proc/sysrq-trigger", timeout=120)
    with pytest.raises(GuestPanic):
        vm.wait_for_shutdown(timeout=120)
    with pytest.raises(GuestPanic):
        vm.shutdown()
    assert vm.running
    assert "panicked" in str(vm.broken)


@pytest.mark.vm(image=None)
def test_crash_is_no_shutdown(vm: VM) -> None:
    with vm.expect_exit(-signal.SIGSEGV):
        os.kill(vm.pid, signal.SIGSEGV)
        with pytest.raises(QEMUExited, match="QEMU was killed by SIGSEGV"):
            vm.wait_for_shutdown()
    assert "SIGSEGV" in str(vm.broken)


def test_qemu_that_does_not_answer(vm_factory: VMFactory) -> None:
    waiting = ["-chardev", "socket,id=x,path=never.sock,server=on,wait=on"]
    with pytest.raises(LaunchError, match=r"VM 'vm': QEMU runs, but did not answer within 1 s"):
        vm_factory(image=None, timeout=1, args=waiting)


def test_command_that_never_got_a_lane(vm_factory: VMFactory) -> None:
    vm = vm_factory(autostart=False, start="boot")
    vm.start(wait=False)
    with pytest.raises(CommandTimeout, match=r"within 0\.1 s and was never started"):
        vm.run("touch /tmp/ghost", timeout=0.1)
    assert vm.run("ls /tmp/ghost", check=1).stdout == ""


def test_what_is_held_after_the_end(vm_factory: VMFactory) -> None:
    vm = vm_factory()
    process = vm.popen("sleep 600")
    vm.close()
    with pytest.raises(QEMUExited):
        process.wait()
    with pytest.raises(QEMUExited, match="is off"):
        vm.run("true")


def test_qemu_is_killed(vm: VM) -> None:
    process = vm.popen("sleep 600")
    with vm.expect_exit():
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(QEMUExited, match=r"VM 'vm': QEMU was killed by SIGKILL") as end:
            process.wait(timeout=60)
    assert "Command:\n" in str(end.value)
    assert end.value.returncode == -signal.SIGKILL
    assert "SIGKILL" in str(vm.broken)


def test_qemu_refuses(vm_factory: VMFactory) -> None:
    with pytest.raises(LaunchError, match="VM 'vm': QEMU exited with status 1 before it was up") as refusal:
        vm_factory(image=None, args=["-device", "no-such-device"])
    assert "'no-such-device' is not a valid device model name" in refusal.value.stderr
    assert refusal.value.command[-1] == "no-such-device"
    assert refusal.value.returncode == 1


def test_boot_that_does_not_end(vm_factory: VMFactory) -> None:
    with pytest.raises(BootTimeout) as expiry:
        vm_factory(ready=re.compile("never printed"), timeout=3)
    assert re.match(
        r"VM 'vm' did not become ready within 3 s \(waiting for 'never printed' on the console; accel=\w+\)\. "
        r"Since it was switched on: \d+ bytes on the console, .* CPU time\. "
        r"(Console is at:\n|The console shows nothing\.$)",
        str(expiry.value),
    )
    assert expiry.value.timeout == 3


@pytest.mark.vm(ready=re.compile(r"tiny l.gin"))
def test_ready_pattern(vm: VM) -> None:
    vm.console.expect("tiny login: ", timeout=5)  # nothing that was waited for is lost


@pytest.mark.vm(ready="ssh", nics=None)
def test_ready_ssh(vm: VM) -> None:
    assert vm.ssh.run("id -un").stdout == "root\n"


@pytest.mark.vm(autostart=False, ready="login")
def test_autostart_false(vm: VM) -> None:
    assert not vm.running
    assert vm.started is None
    assert vm.command == []
    vm.start()
    vm.console.expect("login: ", timeout=5)


@pytest.mark.vm(image=None, machine="none")
def test_qmp_only(vm: VM) -> None:
    assert vm.qmp.execute("query-status")["running"]
    with pytest.raises(QMPError, match=r"'query-nothing' failed: .* \(CommandNotFound\)") as refusal:
        vm.qmp.execute("query-nothing")
    assert refusal.value.error_class == "CommandNotFound"
    with pytest.raises(SpecError, match="has no console"):
        vm.console  # noqa: B018 - the property is what raises


def test_events(shared: VM) -> None:
    with shared.qmp.expect_event("STOP") as stop:
        shared.pause()
    assert stop.event is not None
    assert stop.event["event"] == "STOP"
    shared.resume()
    with pytest.raises(WaitTimeout, match=r"no QMP event SHUTDOWN within 0\.1 s; events instead: STOP"):  # noqa: SIM117
        with shared.qmp.expect_event("SHUTDOWN", timeout=0.1):
            shared.pause()
    shared.resume()


@pytest.mark.vm(image=None, kernel="bzImage")
def test_missing_kernel_is_named(request: pytest.FixtureRequest) -> None:
    with pytest.raises(SpecError, match=r"kernel.*bzImage"):
        request.getfixturevalue("vm")


def test_nothing_is_left(vm_factory: VMFactory) -> None:
    vm = vm_factory(drives=[Drive(size="1M")])
    pid = vm.pid
    folder = Path(f"/proc/{pid}/cwd").resolve()
    assert (folder.stat().st_mode & 0o777) == 0o700
    vm.close()
    vm.close()
    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()
