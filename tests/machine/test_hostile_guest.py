"""A guest whose root means us ill, on the ports that we gave it: what we wait for ends, and others do not notice."""

from __future__ import annotations

import contextlib
import resource
import time
from pathlib import Path

import pytest

from pytest_kvm import VM, BootTimeout, CommandError, MachineError, TooMuchOutput
from pytest_kvm.guest.shell import stream
from pytest_kvm.waiting import Deadline

LIMIT = 60.0
# Whoever serves the ports holds them.
FREE = "killall -9 lanes lane control resumer resume; sleep 0.2"
RUBBISH = (
    "cat /dev/urandom",
    "cat /dev/zero",
    "yes 1 0",
    "yes ready me",
    r"yes $(head -c 200 /dev/zero | tr '\0' 9) 1",
)


def say(vm: VM, what: str, *ports: str) -> None:
    """Let the guest say something on ports, by the end of their names; not all of them are listened to."""
    script = f"""{FREE}
    for dir in /sys/class/virtio-ports/*; do
        for port in {" ".join(ports)}; do
            case $(cat $dir/name) in *$port) timeout 1 sh -c "$0" >/dev/${{dir##*/}} 2>/dev/null & ;; esac
        done
    done
    wait"""
    vm.ssh.run(["sh", "-c", script, what], timeout=LIMIT, check=False)


@pytest.mark.slow
def test_rubbish_on_every_port(vm: VM) -> None:
    for rubbish in RUBBISH:
        say(vm, rubbish, "control", "resume", "0.ctl", "0.out", "0.err")
        began = time.monotonic()
        with contextlib.suppress(MachineError):
            vm.run("true", timeout=0.5, check=False)
        assert time.monotonic() - began < LIMIT
        assert vm.qmp.execute("query-status")["status"] == "running"
    vm.reset()
    assert vm.run("echo sane").stdout == "sane\n"


def test_others_do_not_notice_a_flood(vm: VM, shared: VM) -> None:
    script = f"{FREE}\nfor dev in /dev/vport*; do timeout 10 yes >$dev 2>/dev/null & done; :"
    vm.ssh.run(script, timeout=LIMIT, check=False)
    for number in range(20):
        assert shared.run(f"echo {number}", timeout=LIMIT).stdout == f"{number}\n"
    with pytest.raises(MachineError):
        vm.run("true", timeout=0.5)
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_a_snapshot_of_a_guest_that_does_not_let_itself_be_set_right(vm: VM) -> None:
    vm.ssh.run(
        "killall -9 resumer resume; sleep 0.2; cd /sys/class/virtio-ports; port=$(grep -l resume */name); "
        "setsid yes >/dev/${port%/name} 2>/dev/null </dev/null & sleep 0.3",
        timeout=LIMIT,
    )
    with pytest.raises(MachineError, match=r"could not be set right after it was cloned|something else") as caught:
        vm.restore(vm.snapshot())
    assert not isinstance(caught.value, BootTimeout)  # that would have taken two minutes


def test_a_command_that_never_stops(shared: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 4 << 20)
    for command, name in (("yes", "stdout"), ("yes >&2", "stderr")):
        with pytest.raises(TooMuchOutput, match=f"more than 256 MiB to {name} and was killed"):
            shared.run(command, timeout=LIMIT)
        # It is in the midst of writing, and ends a moment after the shell that ran it.
        shared.run("while pidof yes; do usleep 10000; done", timeout=LIMIT)


def test_a_command_in_the_background_that_never_stops(shared: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 4 << 20)
    with shared.popen("yes", text=False) as process:
        assert shared.watch.wait_for(lambda: bool(process.job.full), Deadline(LIMIT))
        for _ in range(8):  # twice what is kept
            assert len(process.stdout.read(1 << 20)) == 1 << 20
    assert process.wait(LIMIT) == 137
    assert shared.run("echo usable").stdout == "usable\n"


def test_a_console_that_is_flooded(vm: VM) -> None:
    before = _rss()
    vm.run(r"head -c 500000 /dev/zero | tr '\0' '\377' >/dev/ttyS0", timeout=120)
    assert vm.serial is not None
    serial = vm.serial
    # It comes another way than the command's end.
    assert vm.watch.wait_only(lambda: serial.received > 500_000, Deadline(LIMIT))
    assert _rss() - before < 150 << 20
    vm.console.login(timeout=LIMIT)
    assert vm.console.run("echo $((6 * 7))").stdout == "42\n"


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# What reaches the terminal

HOSTILE = """
import pytest

def test_it(vm):
    vm.run(r"printf '\\033[2J\\033]0;title\\007\\233 \\377 \\r\\b said\\n' >&2; exit 3")

def test_console(vm):
    vm.console.login()
    vm.run(r"printf '\\033[2J\\033]52;c;x\\007 \\377 printed\\r\\n' >/dev/ttyS0")
    vm.console.expect("never", timeout=0.5)

def test_ssh(vm):
    vm.ssh.run(r"printf '\\033[31mred \\377' >&2; exit 1")

@pytest.mark.vm(kernel="/tmp/\\x1b[2J\\udcff")
def test_spec(vm): ...
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_nothing_of_it_acts_on_the_terminal(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makepyfile(HOSTILE)
    result = pytester.runpytest_subprocess("-n", workers, "--color=no", "-rA", "--junitxml=junit.xml", timeout=300)
    result.assert_outcomes(failed=3, errors=1)
    text = result.stdout.str() + result.stderr.str() + (pytester.path / "junit.xml").read_text()
    for character in "\x1b\x07\x08\x9b\r":
        assert character not in text
    result.stdout.fnmatch_lines_random(
        [
            "E *stderr: \\x9b \\xff*",
            "E *\\x08 said",
            "E *\\xff printed",
            "E *stderr: red \\xff",
            "*there is no such file*",
        ]
    )


def test_the_data_are_as_they_came(shared: VM) -> None:
    with pytest.raises(CommandError) as caught:
        shared.run(r"printf '\033[31mred\r\007' >&2; exit 1")
    assert caught.value.stderr == "\x1b[31mred\r\x07"
    assert "\x1b" not in str(caught.value)
    assert shared.run(r"printf '\033[1m\377'", text=False).stdout == b"\x1b[1m\xff"
