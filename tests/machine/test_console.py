"""The serial console, with pexpect on top."""

from __future__ import annotations

import pexpect
import pytest

from pytest_kvm import VM, ConsoleTimeout


def test_login_and_expect(shared: VM) -> None:
    shared.console.login()
    shared.console.sendline("echo $((6 * 7))")
    shared.console.expect(r"42\r\n", timeout=10)
    shared.console.login()  # is logged in already


def test_run(shared: VM) -> None:
    shared.console.login()
    assert shared.console.run("id -u").stdout == "0\n"
    assert shared.console.run("id -u").returncode == 0
    long = "x" * 200
    result = shared.console.run(f"echo {long}; sh -c 'exit 9'")
    assert (result.returncode, result.stdout) == (9, f"{long}\n")


def test_control_characters(shared: VM) -> None:
    shared.console.login()
    shared.console.sendline("echo start''ed; cat")
    shared.console.expect("started\r\n")
    shared.console.sendline("echoed")
    shared.console.expect("echoed\r\n.*echoed\r\n")
    shared.console.sendcontrol("c")
    shared.console.expect("# ")
    shared.console.sendline("echo be''gun; cat; echo ended=$?")
    shared.console.expect("begun\r\n")
    shared.console.sendeof()
    shared.console.expect("ended=0")
    with pytest.raises(ValueError, match="no control character for '1'"):
        shared.console.sendcontrol("1")


def test_timeout_names_what_was_awaited(shared: VM) -> None:
    shared.console.login()
    shared.console.sendline("echo some''thing")
    shared.console.expect("something")
    with pytest.raises(ConsoleTimeout) as expiry:
        shared.console.expect(["never", "ever"], timeout=0.1)
    assert str(expiry.value).startswith(
        "VM 'shared': console did not show 'never' or 'ever' within 0.1 s. Console is at:\n"
    )
    assert "something" in str(expiry.value)
    assert isinstance(expiry.value, pexpect.TIMEOUT)
    assert shared.console.expect_exact(["never", pexpect.TIMEOUT], timeout=0.1) == 1


def test_a_chatty_guest_does_not_block(shared: VM) -> None:
    shared.run("yes 'a line of forty characters, to be drained' | head -c 500000 >/dev/ttyS0", timeout=180)
    assert shared.console.tail(1).startswith("a line of forty")


def test_end_of_file_when_it_goes_off(vm: VM) -> None:
    vm.run("poweroff")
    vm.console.expect(pexpect.EOF, timeout=60)
    assert not vm.console.isalive()


def test_log_has_the_hosts_time(vm: VM) -> None:
    assert vm.serial is not None
    line = vm.serial.log_path.read_text().splitlines()[0]
    hours, minutes, rest = line.split(":")[:3]
    assert (len(hours), len(minutes), rest[2]) == (2, 2, ".")
