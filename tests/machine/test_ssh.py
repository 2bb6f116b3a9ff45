"""SSH to the built-in guest, with our key."""

from __future__ import annotations

import filecmp
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pytest_kvm import (
    VM,
    BootTimeout,
    CommandError,
    CommandTimeout,
    GuestPanic,
    QEMUExited,
    SpecError,
    SSHError,
    TransferError,
    VMFactory,
)
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.guest.ssh.transfer import Progress
from pytest_kvm.machine.readiness import wait_ready
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline


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


# Files; the guest has busybox and dropbear, and no SFTP server


@pytest.fixture
def there(shared: VM) -> Iterator[str]:
    """A directory in the guest."""
    folder = shared.ssh.run("mktemp -d").stdout.strip()
    yield folder
    shared.ssh.run(["rm", "-rf", folder])


def test_a_program_is_put_and_run(shared: VM, there: str, tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("#!/bin/sh\necho probed $1\n")
    assert shared.ssh.put(tmp_path / "probe", f"{there}/probe", mode=0o755) == f"{there}/probe"
    assert shared.ssh.run([f"{there}/probe", "well"]).stdout == "probed well\n"


def test_files_of_the_guest(shared: VM, tmp_path: Path) -> None:
    assert shared.ssh.get("/etc/passwd", tmp_path) == tmp_path / "passwd"
    assert (tmp_path / "passwd").read_text() == shared.run("cat /etc/passwd").stdout
    assert "processor" in shared.ssh.get("/proc/cpuinfo", tmp_path).read_text()


def test_a_directory_there_and_back(shared: VM, there: str, tmp_path: Path) -> None:
    names = ["plain", "a b", "-dash", "it's", 'say "x"', "new\nline", "ünïcødé", "$HOME", "*", "back\\slash", "l" * 240]
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    for name in names:
        (tree / "sub" / name).write_text(name)
    (tree / "none").touch()
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o751)
    (tree / "link").symlink_to("sub/plain")
    (tree / "sub").chmod(0o750)
    assert shared.ssh.put(tree, there) == f"{there}/tree"
    assert shared.ssh.put(tree, there) == f"{there}/tree"  # merged with what is there
    modes = shared.run(["stat", "-c", "%a %u %F", *(f"{there}/tree/{name}" for name in ("run", "sub", "link", "none"))])
    assert modes.stdout == ("751 0 regular file\n750 0 directory\n777 0 symbolic link\n644 0 regular empty file\n")
    assert shared.run(f"ls -A {there}").stdout == "tree\n"
    back = shared.ssh.get(f"{there}/tree", tmp_path / "back")
    same = filecmp.dircmp(tree, back)
    assert (same.left_only, same.right_only, same.diff_files, same.subdirs["sub"].common) == (
        [],
        [],
        [],
        sorted([*names, "empty"]),
    )
    assert os.readlink(back / "link") == "sub/plain"
    assert [path.stat().st_mode & 0o777 for path in (back / "run", back / "sub")] == [0o751, 0o750]


def test_a_large_file(shared: VM, there: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 20
    (tmp_path / "large").write_bytes(data)
    shared.ssh.put(tmp_path / "large", there)
    assert shared.ssh.get(f"{there}/large", tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk(shared: VM, there: str, tmp_path: Path, kind: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "large").write_bytes(bytes(3 << 20))
    (tmp_path / "file").hardlink_to(tmp_path / "directory" / "large")
    shared.run(f"mount -t tmpfs -o size=1M none {there}")
    try:
        with pytest.raises(TransferError, match="No space left on device"):
            shared.ssh.put(tmp_path / kind, there)
        assert shared.run(f"ls -A {there}").stdout == ""
    finally:
        shared.run(f"umount {there}")


def test_what_the_guest_refuses(shared: VM, there: str, tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        shared.ssh.put(b"x", "/nowhere/x")
    assert str(caught.value) == (
        "VM 'shared': cannot put 1 bytes to '/nowhere/x' (SSH, as root): there is no directory /nowhere/"
    )
    with pytest.raises(
        TransferError, match=r"^VM 'shared': cannot put 1 bytes to '/proc/x' \(SSH, as root\): .*can't create"
    ):
        shared.ssh.put(b"x", "/proc/x")
    with pytest.raises(TransferError, match=r"there is no /nowhere$"):
        shared.ssh.get("/nowhere", tmp_path)
    shared.run(f"ln -s / {there}/root")
    with pytest.raises(TransferError, match=r"'root' is a link to '/', which leads out of it"):
        shared.ssh.get(there, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_the_kernel(shared: VM) -> None:
    shared.ssh.put(b"1000\n", "/proc/sys/vm/dirty_writeback_centisecs")
    assert shared.run("cat /proc/sys/vm/dirty_writeback_centisecs").stdout == "1000\n"


# Logins


def test_an_account_without_a_password(shared: VM) -> None:
    shared.run("dropbear -B -R -p 2222 -P /tmp/second.pid")
    try:
        with closing(other_login(shared, Image("disk", name="blank", ssh_user="root"), 2222)) as ssh:
            assert ssh.run("id -un").stdout == "root\n"
    finally:
        shared.run("kill $(cat /tmp/second.pid)")


def other_login(vm: VM, image: Image, port: int = 22) -> SSH:
    return SSH(name=vm.name, image=image, watch=vm.watch, internet=False, address=lambda: vm.forward(port))


def test_a_guest_that_does_not_let_us_in(shared: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(other_login(shared, Image("disk", name="stranger", ssh_user="root", password="wrong"))) as ssh:
        monkeypatch.setattr(shared, "_ssh", ssh)
        with pytest.raises(BootTimeout) as caught:
            wait_ready(shared, "ssh", Deadline(1))
    assert re.match(
        r"VM 'shared' did not become ready within \d+ s \(waiting for SSH, last try: "
        "SSH login as 'root': the server refuses the password",
        str(caught.value),
    )


def test_a_command_that_a_signal_ends(shared: VM) -> None:
    assert shared.ssh.run("kill -9 $$", check=137).returncode == 137


def test_what_does_not_end_in_time_is_killed(shared: VM) -> None:
    with pytest.raises(CommandTimeout, match="and was killed"):
        shared.ssh.run("sleep 4242; :", timeout=0.5)
    assert "sleep 4242" not in shared.run("ps").stdout


def test_a_guest_that_sleeps(shared: VM) -> None:
    shared.ssh.run("true")
    shared.pause()
    try:
        with pytest.raises(CommandTimeout, match="and was never started: the guest's SSH server did not answer"):
            shared.ssh.run("true", timeout=0.5)
        with pytest.raises(SSHError, match=r"no SSH connection within 0\.5 s \(through 127\.0\.0\.1:\d+\); last try: "):
            shared.ssh.put(b"x", "/tmp/x", timeout=0.5)
    finally:
        shared.resume()
    assert shared.ssh.run("echo awake").stdout == "awake\n"


def test_a_script_that_is_longer_than_dropbear_allows(shared: VM) -> None:
    assert shared.ssh.run(f"echo {'x' * 9000}; cat", input="in").stdout == f"{'x' * 9000}\nin"


# What happens to the machine


def test_the_connection_dies(shared: VM) -> None:
    with pytest.raises(
        SSHError, match=r"SSH connection lost under command 'kill -9 \$PPID; sleep 60', after \d+\.\d s: "
    ):
        shared.ssh.run("kill -9 $PPID; sleep 60")
    assert shared.ssh.run("echo again").stdout == "again\n"
    shared.run(["kill", "-9", shared.ssh.run("echo $PPID").stdout.strip()])
    assert shared.ssh.run("echo and again").stdout == "and again\n"


@pytest.fixture
def midway(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something in a thread of its own when a million bytes have been copied."""

    def plan(action: Callable[[], object]) -> None:
        advance = Progress.advance
        actions = [action]

        def spy(self: Progress, size: int) -> None:
            advance(self, size)
            if self.done > 1_000_000 and actions:
                threading.Thread(target=actions.pop()).start()

        monkeypatch.setattr(Progress, "advance", spy)

    return plan


Midway = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("verb", ["put", "get"])
def test_qemu_is_killed_in_the_middle(vm: VM, tmp_path: Path, midway: Midway, verb: str) -> None:
    vm.ssh.run("truncate -s 200M /tmp/file")
    midway(lambda: os.kill(vm.pid, signal.SIGKILL))
    with vm.expect_exit(), pytest.raises(QEMUExited, match="QEMU was killed by SIGKILL"):
        vm.ssh.put(bytes(200 << 20), "/tmp/new") if verb == "put" else vm.ssh.get("/tmp/file", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_guest_panics_in_the_middle(vm: VM, midway: Midway) -> None:
    vm.ssh.run("true")
    midway(lambda: vm.shell.start("echo c >/proc/sysrq-trigger", stdin=False))  # type: ignore[union-attr]
    with vm.expect_panic(), pytest.raises(GuestPanic):
        vm.ssh.put(bytes(200 << 20), "/tmp/new", timeout=None)


def test_the_machine_is_reset_in_the_middle(vm: VM, midway: Midway) -> None:
    vm.ssh.run("true")
    midway(lambda: vm.reset(wait=False))
    with pytest.raises(SSHError, match=r"SSH connection lost under put of .*, after \d+\.\d s: the machine was reset$"):
        vm.ssh.put(bytes(200 << 20), "/tmp/new", timeout=None)
    wait_ready(vm, "shell", Deadline(120))
    assert vm.ssh.run("echo booted again").stdout == "booted again\n"
