"""What SSH servers and we agree on, new ones and old ones, and the keys that we log in with."""

from __future__ import annotations

import socket
from pathlib import Path

import paramiko
import pytest

from pytest_kvm.errors import SSHError
from pytest_kvm.guest.ssh.legacy import LegacyTransport
from pytest_kvm.guest.ssh.login import load_key
from pytest_kvm.guest.ssh.transport import GuestTransport
from tests.guest.ssh.conftest import Connect, Start
from tests.guest.ssh.sshd import make_key, transport_of

# What a server of 2012 offers; the groups are tried apart.
OLD = ("HostKeyAlgorithms ssh-rsa", "MACs hmac-sha1")
HAS_SHA1 = "diffie-hellman-group14-sha1" in paramiko.Transport._kex_info  # type: ignore[attr-defined]  # before 5.0


# Algorithms


def test_a_modern_server_is_offered_no_sha1(sshd: Start, connect: Connect) -> None:
    server = sshd("LogLevel DEBUG2")
    transport = transport_of(connect(server).client)
    assert (type(transport), transport.host_key_type, server.accepted) == (GuestTransport, "ssh-ed25519", 1)
    offered = [line for line in server.log.read_text().splitlines() if "debug2: KEX algorithms: " in line][-1]
    if not HAS_SHA1:
        assert "sha1" not in offered
    assert "kex: algorithm: diffie" not in server.log.read_text()


def test_even_the_legacy_transport_prefers_what_is_new(sshd: Start, connect: Connect) -> None:
    server = sshd("LogLevel DEBUG1", host_key="rsa")
    ssh = connect(server, ssh_key=server.image.ssh_key.with_name("client_rsa"))  # type: ignore[union-attr]
    ssh._connector._kind = LegacyTransport
    transport = transport_of(ssh.client)
    assert (type(transport), transport.host_key_type) == (LegacyTransport, "rsa-sha2-512")
    log = server.log.read_text()
    assert "diffie-hellman" not in log.partition("kex: algorithm: ")[2].partition("\n")[0]
    assert "signature algorithm ssh-rsa" not in log


@pytest.mark.parametrize("cipher", ["aes128-ctr", "aes128-cbc"])
@pytest.mark.parametrize("group", ["diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"])
def test_sha1_where_there_is_nothing_else(sshd: Start, connect: Connect, group: str, cipher: str) -> None:
    server = sshd(*OLD, f"KexAlgorithms {group}", f"Ciphers {cipher}", host_key="rsa")
    if not HAS_SHA1:
        with (
            socket.create_connection(server.address) as wire,
            pytest.raises(paramiko.SSHException, match="no acceptable"),
        ):
            paramiko.Transport(wire).start_client(timeout=10)
    before = server.accepted
    ssh = connect(server)
    assert ssh.run("echo old").stdout == "old\n"
    transport = transport_of(ssh.client)
    assert (transport.host_key_type, transport.local_mac, transport.local_cipher) == ("ssh-rsa", "hmac-sha1", cipher)
    assert type(transport) is (GuestTransport if HAS_SHA1 else LegacyTransport)
    assert server.accepted == before + (1 if HAS_SHA1 else 2)
    ssh.close()
    assert ssh.run("echo again").stdout == "again\n"
    assert server.accepted == before + (2 if HAS_SHA1 else 3)  # it is known by now


def test_the_old_servers_key_is_verified(sshd: Start, connect: Connect, keys: Path, quick: None) -> None:
    server = sshd(*OLD, "KexAlgorithms diffie-hellman-group14-sha1", host_key="rsa")
    with pytest.raises(SSHError, match=r"the SSH server's host key is ssh-rsa SHA256:\S+, expected ssh-rsa SHA256:"):
        connect(server, ssh_host_key=(keys / "client_rsa.pub").read_text()).run("true")


def test_rsa_signatures_with_sha1(keys: Path) -> None:
    from pytest_kvm.guest.ssh.legacy import with_sha1

    key = with_sha1(load_key(keys / "client_rsa"))
    signature = key.sign_ssh_data(b"data", "ssh-rsa")
    signature.rewind()
    assert key.verify_ssh_sig(b"data", signature)
    signature.rewind()
    assert not key.verify_ssh_sig(b"date", signature)
    other = load_key(keys / "client_ed25519")
    assert with_sha1(other) is other


def test_nothing_in_common(sshd: Start, connect: Connect) -> None:
    server = sshd("Ciphers chacha20-poly1305@openssh.com")
    with pytest.raises(SSHError, match=r"have nothing in common that is needed: .*no acceptable ciphers"):
        connect(server).run("true")
    assert server.accepted == 2


# Keys


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key(sshd: Start, connect: Connect, keys: Path, kind: str) -> None:
    server = sshd(host_key=kind)
    assert connect(server, ssh_key=keys / f"client_{kind}").run("echo in").stdout == "in\n"


@pytest.mark.parametrize(
    ("kind", "format_"),
    [("rsa", "PEM"), ("rsa", "PKCS8"), ("ecdsa", "PEM"), ("ecdsa", "PKCS8"), ("ed25519", "RFC4716")],
)
def test_each_format_of_keys(tmp_path: Path, kind: str, format_: str) -> None:
    path = make_key(tmp_path / "key", kind, "-m", format_)
    key = load_key(path)
    assert f"{key.get_name()} {key.get_base64()}" == " ".join((tmp_path / "key.pub").read_text().split()[:2])
    assert key.can_sign()


@pytest.mark.parametrize(("kind", "format_"), [("ed25519", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8")])
def test_a_key_with_a_passphrase(sshd: Start, connect: Connect, tmp_path: Path, kind: str, format_: str) -> None:
    server = sshd()
    path = make_key(tmp_path / "key", kind, "-m", format_, passphrase="secret")
    with pytest.raises(SSHError) as caught:
        connect(server, ssh_key=path).run("true")
    assert str(caught.value) == (
        f"VM 'vm': the SSH key {path} is protected by a passphrase, for which nobody can be asked here; "
        "remove it from a copy: ssh-keygen -p -N '' -f COPY"
    )
    assert server.accepted == 0


def test_keys_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SSHError, match=r"^the SSH key /nowhere cannot be read: No such file or directory$"):
        load_key(Path("/nowhere"))
    (tmp_path / "key").write_text("-----BEGIN\n")
    with pytest.raises(SSHError, match="is not a private key that can be used"):
        load_key(tmp_path / "key")
