"""Logging in over SSH: by key, by password, or by nothing at all, and what stands in the way.

It imports paramiko, and is to be imported when a connection is made.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.auth_strategy import AuthSource, AuthStrategy, SourceResult

from pytest_kvm.errors import SSHError
from pytest_kvm.guest.ssh.legacy import LegacyTransport, says_what_it_verifies, with_sha1
from pytest_kvm.visible import visible

_KINDS: tuple[tuple[type, type[paramiko.PKey]], ...] = (
    (rsa.RSAPrivateKey, paramiko.RSAKey),
    (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
    (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
)
# What guests say to somebody who logs in well and is not to run commands: cloud-init's forced command for root,
# nologin(8), and sshd for a password that has expired.
_EXCUSES = re.compile(
    r"^.*(?:Please login as the user|account is (?:currently )?not available|[Pp]assword change required"
    r"|required to change your password).*$",
    re.MULTILINE,
)
# PAM asks for these when the password has expired; the password as the answer to "Current password" is right.
_NEW_PASSWORD = re.compile(r"\b(?:new|retype|re-enter|again)\b", re.IGNORECASE)


class LoginRefused(paramiko.AuthenticationException):
    """The server did not let us in. ``stale`` says that an RSA key might do with a signature by SHA-1."""

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(visible(message))  # it may be the cause of what is shown
        self.stale = stale


class Login(AuthStrategy):
    """What paramiko.SSHClient.connect takes in place of a key and a password.

    With both, the key comes first, and the password if the server refuses the key, or wants both. With neither, the
    account is one without a password. The password is also the answer to a server that asks for it in a dialogue.
    """

    def __init__(self, user: str, *, key: paramiko.PKey | None, password: str | None) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._user = user
        self._key = key
        self._password = password

    def get_sources(self) -> Iterator[AuthSource]:
        """Return nothing: which way comes next depends on what became of the one before."""
        return iter(())

    def authenticate(self, transport: paramiko.Transport) -> list[SourceResult]:
        """Log in; raises LoginRefused, or another SSHException when the connection breaks."""
        refused: list[str] = []
        offered: Sequence[str] = ()
        for means, log_in in self._ways(transport):
            try:
                if not log_in():
                    return []
                refused.append(f"{means} alone")
            except LoginRefused:
                raise
            except paramiko.AuthenticationException as error:
                if goodbye := getattr(transport, "goodbye", ""):  # it has had enough
                    raise LoginRefused(goodbye) from error
                if not transport.is_active():
                    raise paramiko.SSHException(str(error)) from error
                if isinstance(error, paramiko.BadAuthenticationType):
                    offered = error.allowed_types
                refused.append(means)
        offers = f"; it offers {', '.join(offered)}" if offered else ""
        raise LoginRefused(f"the server refuses {' and '.join(refused)}{offers}", stale=self._stale(transport))

    def _ways(self, transport: paramiko.Transport) -> list[tuple[str, Callable[[], list[str]]]]:
        ways: list[tuple[str, Callable[[], list[str]]]] = []
        if self._key is not None:
            key = with_sha1(self._key) if isinstance(transport, LegacyTransport) else self._key
            ways.append((f"the {key.get_name()} key", lambda: transport.auth_publickey(self._user, key)))
        if self._password == "" or (self._key is None and self._password is None):
            ways.append(("no password", lambda: transport.auth_none(self._user)))
        if self._password is not None:
            ways.append(("the password", lambda: self._by_password(transport, self._password or "")))
        return ways

    def _by_password(self, transport: paramiko.Transport, password: str) -> list[str]:
        try:
            return transport.auth_password(self._user, password, fallback=False)
        except paramiko.BadAuthenticationType as error:
            if "keyboard-interactive" not in error.allowed_types:
                raise
        except paramiko.SSHException as error:
            # SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252, section 8) has the number of another message.
            if "Illegal info request" in str(error):
                raise _new_password_wanted() from error
            raise

        def answer(_title: str, _instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            if any(_NEW_PASSWORD.search(prompt) for prompt, _ in prompts):
                raise _new_password_wanted()
            return [password for _ in prompts]

        return transport.auth_interactive(self._user, answer)

    def _stale(self, transport: paramiko.Transport) -> bool:
        return (
            isinstance(self._key, paramiko.RSAKey)
            and not isinstance(transport, LegacyTransport)
            and not says_what_it_verifies(transport)
        )


def _new_password_wanted() -> LoginRefused:
    return LoginRefused("the guest wants a new password, which nobody is there to think of")


def load_key(path: Path) -> paramiko.PKey:
    """Return a private key, in any format of OpenSSH and OpenSSL, of a kind that paramiko knows; raises SSHError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SSHError(f"the SSH key {path} cannot be read: {error.strerror}") from error
    try:
        try:
            private = serialization.load_ssh_private_key(data, None)
        except ValueError:
            private = serialization.load_pem_private_key(data, None)  # type: ignore[assignment]
    except TypeError as error:
        raise SSHError(
            f"the SSH key {path} is protected by a passphrase, for which nobody can be asked here; "
            f"remove it from a copy: ssh-keygen -p -N '' -f COPY"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SSHError(f"the SSH key {path} is not a private key that can be used: {error}") from error
    for kind, ours in _KINDS:
        if isinstance(private, kind):
            # paramiko reads fewer formats than cryptography does.
            plain = private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            return ours.from_private_key(io.StringIO(plain.decode()))
    raise SSHError(f"the SSH key {path} is of a kind that paramiko does not know; it knows RSA, ECDSA and Ed25519")


def excuse(output: str) -> str | None:
    """Return the line in which a guest says that this user is not to run commands; None if there is none."""
    found = _EXCUSES.search(output)
    return found[0].strip() if found else None
