"""Making and keeping SSH connections, with OpenSSH's server on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm.errors import QEMUExited, SSHError
from pytest_kvm.guest.ssh import connection
from pytest_kvm.guest.ssh.login import excuse
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.ssh.conftest import Connect, Start
from tests.guest.ssh.sshd import hang_up, make_key, reset, silent


def test_a_refused_key(sshd: Start, connect: Connect, tmp_path: Path, quick: None) -> None:
    server = sshd("KbdInteractiveAuthentication no")
    with pytest.raises(SSHError) as caught:
        connect(server, ssh_key=make_key(tmp_path / "key", "ed25519"), password="x").run("true")
    assert str(caught.value) == (
        f"VM 'vm': SSH login as {server.image.ssh_user!r}: the server refuses the ssh-ed25519 key and the password; "
        "it offers publickey"
    )
    assert server.accepted == 2


def test_a_server_that_has_had_enough(sshd: Start, connect: Connect, tmp_path: Path, quick: None) -> None:
    server = sshd("MaxAuthTries 1")
    with pytest.raises(SSHError, match=r"^VM 'vm': SSH login as '.*': the server said 'Too many auth.*'$"):
        connect(server, ssh_key=make_key(tmp_path / "key", "ed25519"), password="x").run("true")
    assert server.accepted == 2


def test_another_host_key(sshd: Start, connect: Connect, keys: Path, quick: None) -> None:
    server = sshd()
    with pytest.raises(
        SSHError, match=r"the SSH server's host key is ssh-ed25519 SHA256:.*, expected ecdsa-sha2-nistp256 SHA"
    ):
        connect(server, ssh_host_key=(keys / "host_ecdsa.pub").read_text()).run("true")
    assert server.accepted == 2
    assert connect(server, ssh_host_key=None).run("echo any").stdout == "any\n"


def test_a_guest_that_boots_may_refuse_at_first(
    sshd: Start, connect: Connect, keys: Path, tmp_path: Path, quick: None
) -> None:
    server = sshd(f"AuthorizedKeysFile {tmp_path / 'late'}")

    def at_last(connection: socket.socket) -> None:
        (tmp_path / "late").write_text((keys / "client_ed25519.pub").read_text())
        server.handler(connection)

    server.handlers = [hang_up, reset, server.handler, server.handler, server.handler, at_last]
    assert connect(server).ready(Deadline(30)) is None
    assert server.accepted == 6


def test_a_guest_that_never_lets_us_in(sshd: Start, connect: Connect, tmp_path: Path) -> None:
    server = sshd()
    ssh = connect(server, ssh_key=make_key(tmp_path / "key", "ed25519"))
    assert ssh.ready(Deadline(0.5)) == (
        f"SSH login as {server.image.ssh_user!r}: the server refuses the ssh-ed25519 key"
    )
    assert server.accepted == 1  # at a pace that no server takes for an attack


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (142, 'Please login as the user "debian" rather than the user "root".'),
        (1, "This account is currently not available."),
        (1, "Password change required but no TTY available."),
    ],
)
def test_an_account_that_may_not_run_commands(sshd: Start, connect: Connect, status: int, line: str) -> None:
    server = sshd(f"ForceCommand echo; echo '{line}'; echo; exit {status}")
    with pytest.raises(SSHError) as caught:
        connect(server).ready(Deadline(30))
    assert str(caught.value) == (
        f"VM 'vm': SSH logs in as {server.image.ssh_user!r}, but this user is not to run commands; "
        f"the guest says: {line}"
    )


def test_other_words_are_no_excuse() -> None:
    assert excuse("Linux vm 6.1\naccount: 3\nplease\n") is None


# Nobody there


def test_the_connections_before_a_guest_has_booted(
    sshd: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(connection, "_BANNER_PATIENCE", 0.2)
    server = sshd()
    server.handlers = [silent, hang_up, reset, silent]
    assert connect(server).run("echo up").stdout == "up\n"
    assert server.accepted == 5


def test_nobody_comes(sshd: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_BANNER_PATIENCE", 0.1)
    server = sshd()
    server.handler = silent
    host, port = server.address
    with pytest.raises(SSHError) as caught:
        connect(server).connect(timeout=0.3)
    assert str(caught.value) == (
        f"VM 'vm': no SSH connection within 0.3 s (through {host}:{port}); last try: "
        "no SSH server answered within 0.1 s"
    )


@pytest.mark.parametrize("handler", [hang_up, reset])
def test_a_port_that_hangs_up(sshd: Start, connect: Connect, handler: Callable[[socket.socket], None]) -> None:
    server = sshd()
    server.handler = handler
    # Which of its ends is noticed first, is up to the kernel.
    words = "the (connection was closed before an SSH server answered|guest (reset|closed) the connection)"
    with pytest.raises(SSHError, match=f"last try: {words}$"):
        connect(server).connect(timeout=0.3)
    assert server.accepted > 1


def test_news_of_the_machine_end_the_wait(sshd: Start, connect: Connect, watch: Watch) -> None:
    server = sshd()
    server.handler = lambda _connection: watch.fail(lambda: QEMUExited("it went off"))
    with pytest.raises(QEMUExited, match=r"^it went off$"):
        connect(server).connect(timeout=None)
