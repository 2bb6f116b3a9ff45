"""Commands over SSH, and connections that are lost, with OpenSSH's server on loopback."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest

from pytest_kvm.errors import CommandTimeout, QEMUExited, SSHError
from pytest_kvm.waiting import Watch
from tests.guest.ssh.conftest import Connect, Start
from tests.guest.ssh.sshd import transport_of

# Connections that are lost


def test_a_connection_that_is_lost_under_a_command(sshd: Start, connect: Connect) -> None:
    ssh = connect(sshd())
    with pytest.raises(
        SSHError,
        match=r"^VM 'vm': SSH connection lost under command 'kill -9 \$PPID; sleep 5', after \d\.\d s: "
        r"the guest (closed|reset) the connection$",
    ):
        ssh.run("kill -9 $PPID; sleep 5")
    assert ssh.run("echo new").stdout == "new\n"


def test_an_idle_connection_that_died_is_replaced(sshd: Start, connect: Connect) -> None:
    server = sshd()
    ssh = connect(server)
    for number in range(1, 4):
        assert ssh.run("echo there").stdout == "there\n"
        assert server.accepted == number
        server.break_off()


def test_a_machine_that_is_reset_forgets_its_connections(sshd: Start, connect: Connect, tmp_path: Path) -> None:
    server = sshd()
    ssh = connect(server)
    started = tmp_path / "started"
    os.mkfifo(started)

    def press_reset() -> None:
        started.read_bytes()  # until the command has begun
        ssh.lose("the machine was reset")

    thread = threading.Thread(target=press_reset)
    thread.start()
    with pytest.raises(SSHError, match=r"lost under command .*, after \d\.\d s: the machine was reset$"):
        ssh.run(f"echo >{started}; sleep 5")
    thread.join()
    ssh.lose("nobody uses it")
    assert ssh.run("echo alive").stdout == "alive\n"


def test_news_of_the_machine_end_a_command(sshd: Start, connect: Connect, watch: Watch, tmp_path: Path) -> None:
    ssh = connect(sshd())
    started = tmp_path / "started"
    os.mkfifo(started)

    def panic() -> None:
        started.read_bytes()
        watch.fail(lambda: QEMUExited("it went off"))

    thread = threading.Thread(target=panic)
    thread.start()
    with pytest.raises(QEMUExited, match=r"^it went off$"):
        ssh.run(f"echo >{started}; cat", input=b"x" * 100_000_000, timeout=None)
    thread.join()


# Commands


@pytest.mark.parametrize(("name", "status"), [("KILL", 137), ("TERM", 143), ("HUP", 129)])
def test_a_signal_is_a_status(sshd: Start, connect: Connect, name: str, status: int) -> None:
    assert connect(sshd()).run(f"kill -{name} $$", check=status).returncode == status


def test_what_does_not_end_in_time_is_killed(sshd: Start, connect: Connect) -> None:
    ssh = connect(sshd())
    ssh.run("true")
    with pytest.raises(CommandTimeout, match=r"did not end within 0\.5 s and was killed \(SSH, as ") as caught:
        ssh.run("(trap '' HUP TERM; echo $$; sleep 60; :) & echo $$; sleep 60; :", timeout=0.5)
    for number in caught.value.stdout.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
    assert ssh.run("echo usable").stdout == "usable\n"


def test_no_other_command_is_killed_with_it(sshd: Start, connect: Connect, tmp_path: Path) -> None:
    ssh = connect(sshd())
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    _, stdout, _ = ssh.client.exec_command(f"cat {go_on}")
    with pytest.raises(CommandTimeout, match="and could not be killed"):
        ssh.run("sleep 1", timeout=0.2)
    go_on.write_text("went on")
    assert stdout.read() == b"went on"


@pytest.mark.parametrize("size", [90_000, 120_000])
def test_a_long_script_and_its_input(sshd: Start, connect: Connect, size: int) -> None:
    script = f"echo {'x' * size}; cat; exit 3"
    result = connect(sshd()).run(script, input="input", check=3)
    assert result.stdout == f"{'x' * size}\ninput"


def test_bytes_that_are_no_text_in_a_script(sshd: Start, connect: Connect) -> None:
    assert connect(sshd()).run("printf %s '\udcff'", text=False).stdout == b"\xff"


def test_a_server_that_opens_no_further_session(sshd: Start, connect: Connect) -> None:
    ssh = connect(sshd("MaxSessions 1"))
    channel = transport_of(ssh.client).open_session()
    channel.exec_command("cat")
    with pytest.raises(SSHError) as caught:
        ssh.run("true")
    assert str(caught.value) == (
        "VM 'vm': the guest's SSH server did not carry out command 'true': "
        "it opens no further session on this connection (Connect failed)"
    )


def test_commands_from_many_threads(sshd: Start, connect: Connect) -> None:
    server = sshd()
    ssh = connect(server)
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda text=text: results.append(ssh.run(f"echo {text}").stdout)) for text in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{text}\n" for text in "abcdefgh"]
    assert server.accepted == 1


def test_a_connection_of_its_own(sshd: Start, connect: Connect, stack: ExitStack) -> None:
    server = sshd()
    ssh = connect(server)
    own = stack.enter_context(ssh.connect())
    assert isinstance(ssh.client, paramiko.SSHClient)
    assert own is not ssh.client
    assert own.exec_command("echo own")[1].read() == b"own\n"
    assert repr(ssh) == f"<SSH to VM 'vm', as {server.image.ssh_user}>"
    wire = transport_of(own).sock
    assert isinstance(wire, socket.socket)
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_time(sshd: Start, connect: Connect) -> None:
    """A connection costs no time that it would not need."""
    ssh = connect(sshd())
    ssh.run("true")
    started = time.monotonic()
    for _ in range(10):
        ssh.run("true")
    assert time.monotonic() - started < 2
