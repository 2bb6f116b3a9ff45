"""SSH to the built-in guest, with our key."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, CommandError, CommandTimeout, SpecError, VMFactory


def test_run(shared: VM) -> None:
    result = shared.ssh.run("echo out; echo err >&2; exit 4", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (4, "out\n", "err\n")
    with pytest.raises(CommandError, match=r"status 4 \(SSH, as root\)"):
        shared.ssh.run("exit 4")


def test_stdin_environment_and_directory(shared: VM) -> None:
    assert shared.ssh.run("cat; echo $A; pwd", input="in", env={"A": "b c"}, cwd="/tmp").stdout == "inb c\n/tmp\n"
    assert shared.ssh.run("head -c 1", input="x" * 1_000_000).stdout == "x"


def test_much_output(shared: VM) -> None:
    result = shared.ssh.run("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2", text=False, timeout=120)
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


def test_timeout(shared: VM) -> None:
    with pytest.raises(CommandTimeout) as expiry:
        shared.ssh.run("echo so far; sleep 60", timeout=2)
    assert expiry.value.stdout == "so far\n"
    assert shared.ssh.run("echo usable").stdout == "usable\n"


def test_client_is_the_connection(shared: VM) -> None:
    _, stdout, _ = shared.ssh.client.exec_command("echo by hand")
    assert stdout.read() == b"by hand\n"
    first = shared.ssh.client
    assert shared.ssh.client is first
    first.close()
    assert shared.ssh.run("echo again").stdout == "again\n"


def test_host_key_is_known(shared: VM) -> None:
    transport = shared.ssh.client.get_transport()
    assert transport is not None
    assert transport.get_remote_server_key().get_name() == "ssh-ed25519"


def test_without_network(vm_factory: VMFactory) -> None:
    vm = vm_factory(nics=[])
    assert vm.run("echo but the shell").stdout == "but the shell\n"
    with pytest.raises(SpecError, match="VM 'vm' has no network: its port 22 cannot be forwarded"):
        vm.ssh.run("true")
