"""Passwords, dialogues and accounts without either, with paramiko's own server, which needs no user for it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_PARTIALLY_SUCCESSFUL, AUTH_SUCCESSFUL
from paramiko.server import InteractiveQuery

from pytest_kvm.errors import SSHError
from pytest_kvm.guest.ssh import connection
from pytest_kvm.guest.ssh.legacy import LegacyTransport
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.ssh.sshd import Server, ssh_to, transport_of


class Doorman(paramiko.ServerInterface):
    """Lets ``test`` in by the ways in ``ways``; a way that is not the last one is not enough."""

    def __init__(self, *ways: str, key: str = "", questions: Sequence[str] = ("Password: ",), enough: int = 1) -> None:
        self._ways = ways
        self._key = key
        self._questions = list(questions)
        self._passed = 0
        self._enough = enough
        self.tried: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        return ",".join(self._ways)

    def _judge(self, way: str, right: bool) -> int:
        self.tried.append(way)
        if way not in self._ways or not right:
            return AUTH_FAILED
        self._passed += 1
        return AUTH_SUCCESSFUL if self._passed == self._enough else AUTH_PARTIALLY_SUCCESSFUL

    def check_auth_none(self, username: str) -> int:
        return self._judge("none", True)

    def check_auth_password(self, username: str, password: str) -> int:
        return self._judge("password", password == "right")

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._judge("publickey", key.get_base64() == self._key)

    def check_auth_interactive(self, username: str, submethods: str) -> int | InteractiveQuery:
        if "keyboard-interactive" not in self._ways:
            return AUTH_FAILED
        self.tried.append("keyboard-interactive")
        return InteractiveQuery("", "", self._questions.pop(0))

    def check_auth_interactive_response(self, responses: list[str]) -> int | InteractiveQuery:
        if responses != ["right"]:
            return AUTH_FAILED
        if self._questions:
            return InteractiveQuery("", "", self._questions.pop(0))
        return AUTH_SUCCESSFUL


Enter = Callable[..., SSH]


@pytest.fixture
def enter(keys: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return what ``vm.ssh`` would be: ``enter(doorman, password="right")``; each connection has one doorman."""
    monkeypatch.setattr(connection, "_PAUSES", (0.01,))

    def make(
        *doormen: Doorman, house: Callable[[socket.socket], paramiko.Transport] = paramiko.Transport, **changes: object
    ) -> SSH:
        waiting = list(doormen)

        def serve(wire: socket.socket) -> None:
            transport = house(wire)
            transport.add_server_key(paramiko.ECDSAKey.from_private_key_file(str(keys / "host_ecdsa")))
            stack.callback(transport.close)
            with contextlib.suppress(paramiko.SSHException, EOFError):  # who comes may go in the middle of it
                transport.start_server(server=waiting.pop(0) if waiting[1:] else waiting[0])

        server = Server(serve)
        stack.callback(server.close)
        return stack.enter_context(ssh_to(server, Image("disk", name="doorman", ssh_user="test"), None, **changes))

    return make


@pytest.fixture
def key(keys: Path) -> str:
    return (keys / "client_ed25519.pub").read_text().split()[1]


class OldHouse(LegacyTransport):
    """A server from before 2016: it does not say which signatures it knows."""

    def __init__(self, wire: socket.socket) -> None:
        super().__init__(wire, watch=Watch(), server_sig_algs=False)


def is_in(ssh: SSH) -> bool:
    transport = ssh.client.get_transport()
    return transport is not None and transport.is_authenticated()


def test_a_password(enter: Enter) -> None:
    doorman = Doorman("password")
    assert is_in(enter(doorman, password="right"))
    assert doorman.tried == ["password"]


def test_an_account_without_a_password(enter: Enter) -> None:
    doorman = Doorman("none")
    assert is_in(enter(doorman))
    assert doorman.tried == ["none"]


def test_an_empty_password(enter: Enter) -> None:
    assert is_in(enter(Doorman("none"), password=""))


def test_the_key_comes_first(enter: Enter, keys: Path, key: str) -> None:
    doorman = Doorman("publickey", "password", key=key)
    assert is_in(enter(doorman, password="right", ssh_key=keys / "client_ed25519"))
    assert doorman.tried == ["publickey"]


def test_the_password_after_the_key(enter: Enter, keys: Path) -> None:
    doorman = Doorman("publickey", "password")
    assert is_in(enter(doorman, password="right", ssh_key=keys / "client_ed25519"))
    assert doorman.tried == ["publickey", "password"]


def test_both_are_wanted(enter: Enter, keys: Path, key: str) -> None:
    doorman = Doorman("publickey", "password", key=key, enough=2)
    assert is_in(enter(doorman, password="right", ssh_key=keys / "client_ed25519"))
    assert doorman.tried == ["publickey", "password"]


def test_the_key_alone_is_not_enough(enter: Enter, keys: Path, key: str) -> None:
    doormen = [Doorman("publickey", "password", key=key, enough=2) for _ in range(2)]
    ssh = enter(*doormen, ssh_key=keys / "client_ed25519")
    with pytest.raises(SSHError, match=r"^VM 'vm': SSH login as 'test': the server refuses the ssh-ed25519 key alone$"):
        ssh.connect()


@pytest.mark.parametrize("questions", [["Password: "], ["Password: ", "Password for the second gate: "]])
def test_a_dialogue(enter: Enter, questions: list[str]) -> None:
    assert is_in(enter(Doorman("keyboard-interactive", questions=questions), password="right"))


@pytest.mark.parametrize("question", ["New password: ", "Enter new UNIX password:", "Retype new password: "])
def test_a_password_that_has_expired(enter: Enter, question: str) -> None:
    doorman = Doorman("keyboard-interactive", questions=["Current password: ", question, "New password: "])
    with pytest.raises(SSHError) as caught:
        enter(doorman, password="right").connect()
    assert str(caught.value) == (
        "VM 'vm': SSH login as 'test': the guest wants a new password, which nobody is there to think of"
    )


def test_a_new_password_that_is_asked_for_at_once(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    # SSH_MSG_USERAUTH_PASSWD_CHANGEREQ has the number of a message of the other method.
    def ask(self: paramiko.auth_handler.AuthHandler, *_: object) -> None:
        self._interactive_query(InteractiveQuery("", "", "Change it"))  # type: ignore[attr-defined]

    monkeypatch.setattr(paramiko.auth_handler.AuthHandler, "_send_auth_result", ask)
    with pytest.raises(SSHError, match="the guest wants a new password"):
        enter(Doorman("password"), password="right").connect()


def test_a_wrong_password(enter: Enter) -> None:
    first, second = Doorman("password"), Doorman("password")
    with pytest.raises(SSHError, match=r"^VM 'vm': SSH login as 'test': the server refuses the password$"):
        enter(first, second, password="wrong").connect()
    assert first.tried == second.tried == ["password"]  # twice, on connections of their own


def test_what_is_offered_instead(enter: Enter) -> None:
    with pytest.raises(SSHError, match=r"the server refuses no password; it offers publickey, password$"):
        enter(Doorman("publickey", "password")).connect()


def test_a_password_that_is_set_late(enter: Enter) -> None:
    ssh = enter(Doorman("none"), Doorman("none"), Doorman("password"), password="right")
    assert ssh._connector.connect(Deadline(30), patient=True).get_transport() is not None


def test_a_signature_with_sha1(enter: Enter, keys: Path) -> None:
    key = (keys / "client_rsa.pub").read_text().split()[1]
    first, second = Doorman("password"), Doorman("publickey", key=key)
    ssh = enter(first, second, house=OldHouse, ssh_key=keys / "client_rsa")
    assert is_in(ssh)
    assert (first.tried, second.tried) == (["publickey"], ["publickey"])
    transport = transport_of(ssh.client)
    assert type(transport) is LegacyTransport
    assert transport._agreed_pubkey_algorithm == "ssh-rsa"  # type: ignore[attr-defined]
