"""The serial console, with pexpect on top."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from pytest_kvm import VM, ConsoleTimeout, LoginFailed


@contextmanager
def talkative(vm: VM) -> Iterator[None]:
    """Let the kernel print messages to the console, one after the other."""
    # It would be ten in five seconds (Documentation/admin-guide/kernel-parameters.txt, printk.devkmsg).
    vm.run("echo on >/proc/sys/kernel/printk_devkmsg")
    with vm.popen("while usleep 2000; do echo '<3>test: so # it goes' >/dev/kmsg; done"):
        yield


def add_user(vm: VM, name: str, password: str) -> None:
    vm.run(f'echo "{name}:$(mkpasswd -m sha512 {password}):1000:1000::/tmp:/bin/sh" >>/etc/passwd')


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


def test_run_takes_any_script(shared: VM) -> None:
    shared.console.login()
    script = f"cd /\nfor word in 'grüß' \"it's!\"; do\n\techo $word # {'long ' * 1000}\ndone\nexit 3"
    result = shared.console.run(script, check=3)
    assert (result.returncode, result.stdout) == (3, "grüß\nit's!\n")
    assert shared.console.run("echo )(").returncode == 2
    assert shared.console.run(["printf", "%s", "a  b"]).stdout == "a  b"


def test_run_leaves_the_shell_usable(shared: VM) -> None:
    shared.console.login()
    with pytest.raises(ConsoleTimeout, match=r"did not end within 0\.5 s .* Ctrl-C brought the prompt back"):
        shared.console.run("cat", timeout=0.5)
    assert shared.console.run("echo usable").stdout == "usable\n"


def test_the_kernel_talks_all_the_time(vm: VM) -> None:
    with talkative(vm):
        for number in range(2):
            vm.console.login()
            result = vm.console.run(f"sleep 0.1; echo {'x' * 500}; exit {number}")
            assert result.returncode == number
            assert "test: so # it goes\n" in result.stdout
            assert vm.run("cat /proc/sys/kernel/printk_devkmsg").stdout == "on\n"
            vm.console.sendline("exit")
    assert vm.console.tail().count("test: so # it goes") > 5


def test_users(vm: VM) -> None:
    add_user(vm, "bob", "secret")
    vm.console.login("bob", "secret")
    assert vm.console.run("id -un").stdout == "bob\n"
    vm.console.login()  # whoever it is
    assert vm.console.run("id -un").stdout == "bob\n"
    vm.console.login("root")
    assert vm.console.run("id -un").stdout == "root\n"
    with pytest.raises(LoginFailed, match="the password of 'bob' on the console, and none is known"):
        vm.console.login("bob")


def test_a_prompt_of_before_the_reset(vm: VM) -> None:
    def boot_id() -> str:
        return vm.console.run("cat /proc/sys/kernel/random/boot_id").stdout

    vm.console.login()
    first = boot_id()
    vm.console.sendline()  # whose prompt stays unread
    vm.reset(wait=False)
    vm.console.login()
    assert boot_id() != first


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


def test_services_that_begin_again_leave_the_terminal(vm: VM) -> None:
    def settings() -> str:
        return vm.run("stty -F /dev/ttyS0 -g").stdout

    vm.run("until stty -F /dev/ttyS0 -a | grep -q -- -icanon; do usleep 10000; done")  # getty is there
    before = settings()
    for name in ("control", "resume"):
        vm.run(f"old=$(pidof {name}); kill $old; until [ $(pidof {name}) -gt $old ]; do usleep 10000; done 2>/dev/null")
    assert settings() == before


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
    # The last line may be on its way.
    assert shared.console.tail(2).startswith("a line of forty")


def test_end_of_file_when_it_goes_off(vm: VM) -> None:
    with vm.expect_shutdown():
        vm.run("poweroff")
    vm.console.expect(pexpect.EOF, timeout=60)
    assert not vm.console.isalive()


def test_log_has_the_hosts_time(vm: VM) -> None:
    assert vm.serial is not None
    line = vm.serial.log_path.read_text().splitlines()[0]
    hours, minutes, rest = line.split(":")[:3]
    assert (len(hours), len(minutes), rest[2]) == (2, 2, ".")
