"""Which test fails for what a machine does, whether or not the test looks: each on a real guest."""

from __future__ import annotations

import re

import pytest

from tests.outcomes import Outcomes, run_session

SCENE = """
import os
import re
import signal

import pytest
from pytest_kvm import Drive, GuestPanic, KernelSplat, NotSeen, QEMUExited

# The kernel prints what is written here as if it were its own.
WARN = (
    "echo '<4>WARNING: CPU: 0 PID: 7 at kernel/{0}.c:12 {0}+0x1/0x2' >/dev/kmsg; "
    "echo '<4>---[ end trace 0000000000000000 ]---' >/dev/kmsg"
)
CRASH = "echo c >/proc/sysrq-trigger; sleep 600"
"""
PANIC = r"the guest's kernel panicked: sysrq triggered crash\n(E +)?The guest printed:\n(.*\n)*.*sysrq_handle_crash"


def check(session: Outcomes, expected: dict[str, tuple[str, str]]) -> None:
    """Compare the outcome of each test, and search the pattern in what was said about it."""
    assert {name: session.outcome(name) for name in session.tests} == {
        name: outcome for name, (outcome, _) in expected.items()
    }, session.result.stdout.str()
    for name, (_, pattern) in expected.items():  # xdist says first where the test ran
        assert re.search(pattern, session.text(name), re.MULTILINE), f"{name}: {session.text(name)}"


PANICS = """
def test_in_run(vm):
    vm.run(CRASH, timeout=600)

def test_in_ssh(vm):
    vm.ssh.run(CRASH, timeout=600)

@pytest.mark.vm(extras=["rng"])
def test_without_pvpanic(vm):
    vm.ssh.run(CRASH, timeout=600)

def test_at_the_console(vm):
    vm.console.login()
    vm.console.sendline(CRASH)
    vm.console.expect("never printed", timeout=600)

def test_noticed_by_nobody(vm):
    vm.popen(CRASH)
    vm.watch.wait_only(lambda: vm.watch.failed, Deadline(60))

def test_caught(vm):
    with pytest.raises(GuestPanic):
        vm.run(CRASH, timeout=600)

@pytest.mark.vm(append="rdinit=/none", timeout=600)
def test_at_boot(vm):
    pass

def test_caught_at_boot(vm_factory):
    with pytest.raises(GuestPanic, match="nable to mount root"):
        vm_factory(append="rdinit=/none", timeout=600)

@pytest.fixture
def crashing(vm):
    yield
    vm.run(CRASH, timeout=600)

def test_in_a_teardown(vm, crashing):
    pass

@pytest.fixture
def unnoticed(vm):
    yield
    vm.popen(CRASH)
    vm.watch.wait_only(lambda: vm.watch.failed, Deadline(60))

def test_unnoticed_in_a_teardown(vm, unnoticed):
    pass

@pytest.mark.xfail(raises=GuestPanic, strict=True)
def test_xfail(vm):
    vm.popen(CRASH)
    vm.watch.wait_only(lambda: vm.watch.failed, Deadline(60))

def test_expected(vm):
    with vm.expect_panic("sysrq triggered crash"):
        assert vm.run(CRASH, timeout=600, check=False).returncode == -1
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"
    with vm.qmp.expect_event("RESUME"):
        vm.qmp.execute("cont")
    with pytest.raises(GuestPanic):
        vm.run("true")

def test_expected_and_reset(vm):
    with vm.expect_panic():
        vm.run(CRASH, timeout=600)
    vm.reset()
    assert vm.run("echo alive").stdout == "alive\\n"

def test_another_one(vm):
    with vm.expect_panic("no such thing", timeout=0.1):
        vm.run(CRASH, timeout=600, check=False)

def test_none(vm):
    with vm.expect_panic(timeout=0.1):
        vm.run("true")
"""


def test_panics(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, SCENE + "from pytest_kvm.waiting import Deadline\n" + PANICS, "-n", "2")
    at_boot = r"GuestPanic: VM 'vm': the guest's kernel panicked: .*nable to mount root.*\n(E +)?The guest printed:"
    check(
        session,
        {
            "test_in_run": ("call failed", PANIC),
            "test_in_ssh": ("call failed", PANIC),
            "test_without_pvpanic": ("call failed", PANIC),
            "test_at_the_console": ("call failed", PANIC),
            "test_noticed_by_nobody": ("call failed", r"^pytest_kvm\.errors\.GuestPanic: VM 'vm': " + PANIC),
            "test_caught": ("call failed", r"^pytest_kvm\.errors\.GuestPanic: VM 'vm': " + PANIC),
            "test_at_boot": ("setup failed", at_boot),
            "test_caught_at_boot": ("passed", ""),
            "test_in_a_teardown": ("teardown failed", PANIC),
            "test_unnoticed_in_a_teardown": ("teardown failed", PANIC),
            "test_xfail": ("call skipped", ""),
            "test_expected": ("passed", ""),
            "test_expected_and_reset": ("passed", ""),
            "test_another_one": ("call failed", PANIC),
            "test_none": (
                "call failed",
                r"NotSeen: VM 'vm': a panic was expected, and did not come within 0\.1 s; inst",
            ),
        },
    )
    for name, tellings in session.tests.items():
        assert sum(told.text.count("The guest printed") for told in tellings) <= 1, name


SPLATS = """
def test_splat(vm):
    vm.run(WARN.format("foo"))

def test_two(vm):
    vm.run(WARN.format("foo"))
    vm.run(WARN.format("bar"))

def test_own_failure(vm):
    vm.run(WARN.format("foo"))
    raise KeyError("its own")

def test_paused(vm):
    vm.run(WARN.format("foo"))
    vm.pause()

def test_skipped(vm):
    vm.run(WARN.format("foo"))
    pytest.skip("nothing to see here")

@pytest.mark.xfail(raises=KernelSplat, strict=True)
def test_xfail(vm):
    vm.run(WARN.format("foo"))

@pytest.mark.vm_allow_splat("in foo$")
def test_allowed(vm):
    vm.run(WARN.format("foo"))

@pytest.mark.vm_allow_splat(re.compile("in foo"))
class TestAllowed:
    @pytest.mark.vm_allow_splat("kernel/bar")
    def test_accumulated(self, vm):
        vm.run(WARN.format("foo"))
        vm.run(WARN.format("bar"))

    def test_other(self, vm):
        vm.run(WARN.format("foo"))
        vm.run(WARN.format("bar"))

def test_allowed_by_option(vm):
    vm.run(WARN.format("known_one"))

def test_allowed_by_ini(vm):
    vm.run(WARN.format("known_two"))

@pytest.mark.vm("one")
@pytest.mark.vm("two")
@pytest.mark.vm_allow_splat("foo", vm="one")
@pytest.mark.parametrize("name", ["one", "two"])
def test_allowed_on_one(vms, name):
    vms[name].run(WARN.format("foo"))

def test_expected(vm):
    with vm.expect_splat("WARNING in foo") as expected:
        vm.run(WARN.format("foo") + ";" + WARN.format("foo"))
    assert [finding.kind for finding in expected.findings] == ["WARNING"] * 2
    assert "kernel/foo.c" in expected.findings[0].text

def test_expected_another(vm):
    with vm.expect_splat("WARNING in bar", timeout=0.1):
        vm.run(WARN.format("foo"))

def test_expected_none(vm):
    with vm.expect_splat(timeout=0.1):
        vm.run("true")

@pytest.fixture
def warning(vm):
    yield
    vm.run(WARN.format("foo"))

def test_in_a_teardown(vm, warning):
    pass

@pytest.fixture
def ready(vm):
    vm.run(WARN.format("foo"))

def test_in_a_setup(vm, ready):
    pass

def test_nothing_is_left_at_the_console(vm):
    vm.console.expect("login: ")

def test_caught(vm):
    with pytest.raises(Exception):
        raise KernelSplat("not a real one")
    vm.run(WARN.format("foo"))
"""


def test_splats(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkvm_allow_splat =\n    unknown\n    known_two\n")
    session = run_session(pytester, SCENE + SPLATS, "--kvm-allow-splat", "known_one$", "-n", "2")
    splat = r"^pytest_kvm\.errors\.KernelSplat: VM 'vm': WARNING in foo\nThe kernel printed:\n.*kernel/foo\.c:12"
    failed = ("call failed", splat)
    check(
        session,
        {
            "test_splat": failed,
            "test_two": ("call failed", splat + r"(.*\n)*and KernelSplat: VM 'vm': WARNING in bar\nThe kernel"),
            "test_own_failure": ("call failed", r"E +KeyError: 'its own'\nE +and KernelSplat: VM 'vm': WARNING in foo"),
            "test_paused": failed,
            "test_skipped": failed,
            "test_xfail": ("call skipped", ""),
            "test_allowed": ("passed", ""),
            "TestAllowed::test_accumulated": ("passed", ""),
            "TestAllowed::test_other": ("call failed", r"WARNING in bar"),
            "test_allowed_by_option": ("passed", ""),
            "test_allowed_by_ini": ("passed", ""),
            "test_allowed_on_one[one]": ("passed", ""),
            "test_allowed_on_one[two]": ("call failed", r"VM 'two': WARNING in foo"),
            "test_expected": ("passed", ""),
            "test_expected_another": (
                "call failed",
                r"matching 'WARNING in bar' .* within 0\.1 s; instead: WARNING in foo",
            ),
            "test_expected_none": ("call failed", r"NotSeen: .* a splat was expected, and did not come within 0\.1 s"),
            "test_in_a_teardown": ("teardown failed", splat),
            "test_in_a_setup": failed,
            "test_nothing_is_left_at_the_console": ("passed", ""),
            "test_caught": failed,
        },
    )
    # It prints nothing any more: nobody waits for a mark of its kernel's, and nothing is in doubt.
    assert "judged late" not in session.text("test_paused")
    assert "in foo" not in session.text("TestAllowed::test_other").replace("instead", "")


ENDINGS = """
def test_powers_off(vm):
    vm.run("/sbin/poweroff; sleep 600", timeout=600)

def test_powers_off_unnoticed(vm):
    vm.popen("/sbin/poweroff")
    vm.watch.wait_only(lambda: vm.watch.failed, Deadline(60))

def test_powers_off_expected(vm):
    with vm.expect_shutdown():
        vm.popen("/sbin/poweroff")
    vm.wait_for_shutdown()
    vm.start()
    vm.run("true")

def test_powers_off_and_is_waited_for(vm):
    vm.popen("/sbin/poweroff")
    vm.watch.wait_only(lambda: vm.watch.failed, Deadline(60))
    vm.wait_for_shutdown()

def test_reboots(vm):
    vm.run("/sbin/reboot; sleep 600", timeout=600)

def test_reboots_expected(vm):
    with vm.expect_reboot():
        assert vm.run("/sbin/reboot; sleep 600", timeout=600, check=False).returncode == -1
    assert vm.run("echo back").stdout == "back\\n"

def test_does_not_reboot(vm):
    with vm.expect_reboot(timeout=0.1):
        vm.run("true")

def test_verbs(vm):
    vm.reboot()
    vm.reset()
    vm.shutdown()

def test_by_qmp(vm):
    vm.qmp.execute("quit")
    vm.watch.wait_only(lambda: not vm.running, Deadline(60))

def test_killed(vm):
    os.kill(vm.pid, signal.SIGKILL)
    vm.watch.wait_only(lambda: not vm.running, Deadline(60))

def test_terminated(vm):
    os.kill(vm.pid, signal.SIGTERM)
    vm.watch.wait_only(lambda: not vm.running, Deadline(60))

def test_killed_expected(vm):
    with vm.expect_exit(-9):
        os.kill(vm.pid, signal.SIGKILL)

@pytest.mark.vm(devices=["isa-debug-exit,iobase=0xf4"])
def test_exit_device(vm):
    with vm.expect_exit(33):
        vm.run("printf '\\\\020' | dd of=/dev/port bs=1 seek=244 conv=notrunc", check=False)

DOG = "modprobe i6300esb; watchdog -T 1 -t 60 /dev/watchdog; sleep 600"

@pytest.mark.vm(devices=["i6300esb"])
def test_watchdog(vm):
    vm.run(DOG, timeout=600)

@pytest.mark.vm(devices=["i6300esb"])
def test_watchdog_expected(vm):
    with vm.expect_watchdog("reset"):
        vm.run(DOG, timeout=600)
    vm.run("true")

@pytest.mark.vm(image=None, drives=[Drive(size="1M")])
def test_nothing_to_boot_expected(vm):
    with vm.expect_panic("No bootable device"):
        pass

@pytest.mark.vm(image=None, drives=[Drive(size="1M")], ready=re.compile("never"), timeout=600)
def test_nothing_to_boot(vm):
    pass

@pytest.mark.vm(image=None, drives=[Drive(size="1M")])
def test_nothing_to_boot_and_nobody_cares(vm):
    firmware = vm._firmware
    assert vm.watch.wait_only(lambda: "No bootable device." in firmware.shown(), Deadline(60))
"""


def test_endings(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, SCENE + "from pytest_kvm.waiting import Deadline\n" + ENDINGS, "-n", "2")
    off = r"GuestPanic: VM 'vm': the guest switched itself off, and nobody had asked it to\n"
    check(
        session,
        {
            "test_powers_off": ("call failed", off),
            "test_powers_off_unnoticed": ("call failed", off),
            "test_powers_off_expected": ("passed", ""),
            "test_powers_off_and_is_waited_for": ("passed", ""),
            "test_reboots": ("call failed", r"GuestPanic: VM 'vm': the guest rebooted by itself, and nobody"),
            "test_reboots_expected": ("passed", ""),
            "test_does_not_reboot": ("call failed", r"NotSeen: VM 'vm': a reboot was expected, and did not come"),
            "test_verbs": ("passed", ""),
            "test_by_qmp": ("passed", ""),
            "test_killed": ("call failed", r"QEMUExited: VM 'vm': QEMU was killed by SIGKILL\n(.*\n)*Command:\n.*qemu"),
            "test_terminated": (
                "call failed",
                r"QEMUExited: VM 'vm' was ended by a signal from outside\nQEMU said:\n.*signal 15",
            ),
            "test_killed_expected": ("passed", ""),
            "test_exit_device": ("passed", ""),
            "test_watchdog": ("call failed", r"GuestPanic: VM 'vm': the guest's watchdog fired: action reset\n"),
            "test_watchdog_expected": ("passed", ""),
            "test_nothing_to_boot_expected": ("passed", ""),
            "test_nothing_to_boot": (
                "setup failed",
                r"GuestPanic: VM 'vm': the firmware found nothing to boot: No boota",
            ),
            "test_nothing_to_boot_and_nobody_cares": ("passed", ""),
        },
    )


SHARED = """
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory()

def test_before(shared):
    pass

def test_guilty(shared):
    shared.run(WARN.format("foo"))

def test_after(shared):
    pass

@pytest.fixture
def warning(shared):
    yield
    shared.run(WARN.format("bar"))

def test_in_a_teardown(shared, warning):
    pass

def test_bystander():
    pass

def test_panic(shared):
    with pytest.raises(GuestPanic):
        shared.run(CRASH, timeout=600)

def test_broken(shared):
    pass
"""


def test_shared_machines(pytester: pytest.Pytester) -> None:
    check(
        run_session(pytester, SCENE + SHARED),
        {
            "test_before": ("passed", ""),
            "test_guilty": ("call failed", "WARNING in foo"),
            "test_after": ("passed", ""),
            "test_in_a_teardown": ("teardown failed", "WARNING in bar"),
            "test_bystander": ("passed", ""),
            "test_panic": ("call failed", PANIC),
            "test_broken": ("setup failed", r"session machine 'vm' is broken since test_it\.py::test_panic"),
        },
    )
