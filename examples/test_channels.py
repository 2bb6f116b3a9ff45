"""Four ways to talk to a machine: its shell, its console, SSH, and QEMU itself."""

from __future__ import annotations

from pytest_kvm import VM


def test_background_command(vm: VM) -> None:
    with vm.popen("while read line; do echo you said $line; done", stdin=True) as process:
        assert process.stdin is not None
        process.stdin.write("hello\n")
        assert process.stdout.readline() == "you said hello\n"


def test_console(vm: VM) -> None:
    vm.console.login()
    vm.console.sendline("echo $((6 * 7))")
    vm.console.expect(r"42\r\n", timeout=5)
    assert vm.console.run("id -u").returncode == 0


def test_ssh(vm: VM) -> None:
    assert vm.ssh.run("id -un").stdout == "root\n"


def test_qmp(vm: VM) -> None:
    assert vm.qmp.execute("query-status")["status"] == "running"
    with vm.qmp.expect_event("RESET", timeout=10):
        vm.qmp.execute("system_reset")
