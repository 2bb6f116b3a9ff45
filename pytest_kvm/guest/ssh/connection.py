"""Making an SSH connection, however often it has to be tried.

It imports paramiko, and is to be imported when a connection is made.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from pytest_kvm.errors import KVMError, SSHError
from pytest_kvm.guest.ssh.legacy import LegacyTransport
from pytest_kvm.guest.ssh.login import Login, LoginRefused, load_key
from pytest_kvm.guest.ssh.transport import GuestTransport, explain
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Watch

# QEMU accepts on a forwarded port before anything listens in the guest: only the banner tells that somebody is there.
# A guest under load gets more time on each try, but not much: a try from before its network was there is lost, however
# long it lasts.
_BANNER_PATIENCE = 3.0
_MOST_PATIENCE = 10.0
_PAUSE = 0.2
_LONGEST_PAUSE = 1.0
# What comes after a refused login, in seconds. OpenSSH 9.8 and later count 5 s for each one against where it came
# from, and shut out who has gathered 15 s (PerSourcePenalties): at this pace, it never comes to that.
_PAUSES = (1.0, 2.0, 4.0, 5.0)
# A guest that has booted means what it says; but it may be the moment in which a user is made.
_IMPATIENT_TRIES = 2
# A guest that has become another one without a word (kexec, say) answers nothing and forgets its connections. It takes
# a packet to be told so, and a command that writes nothing sends none.
_KEEPALIVE = 15
# OpenSSH's own limit for a login (LoginGraceTime), in seconds: a server that takes longer than that has lost us.
_LOGIN_PATIENCE = 120.0
_NOTHING = "nothing was tried"


class Connector:
    """Connects to one machine; ``trouble`` is what the last try met, in words."""

    def __init__(self, *, name: str, image: Image, watch: Watch, address: Callable[[], tuple[str, int]]) -> None:
        self.trouble = _NOTHING
        self._name = name
        self._image = image
        self._watch = watch
        self._address = address
        self._kind: type[GuestTransport] = GuestTransport
        self._key: paramiko.PKey | None = None

    def connect(self, deadline: Deadline, *, patient: bool) -> paramiko.SSHClient:
        """Return a new connection; a ``patient`` one, to a guest that boots, takes no refusal for the last word.

        Raises SSHError when the deadline comes, and at once when a further try is in vain.
        """
        if self._image.ssh_key is not None and self._key is None:
            try:
                self._key = load_key(Path(self._image.ssh_key))
            except SSHError as error:
                raise SSHError(f"VM {self._name!r}: {error}") from error
        refusals = 0
        patience = _BANNER_PATIENCE
        pause = _PAUSE
        while True:
            self._watch.check()
            try:
                return self._attempt(deadline, patience)
            except IncompatiblePeer as error:
                if not self._fall_back():
                    raise SSHError(
                        f"VM {self._name!r}: its SSH server and paramiko {paramiko.__version__} have nothing in common "
                        f"that is needed: {error}"
                    ) from None  # whose text is the server's
                continue
            except (LoginRefused, paramiko.BadHostKeyException) as error:
                if isinstance(error, LoginRefused) and error.stale and self._fall_back():
                    continue
                refusals += 1
                self.trouble = self._refusal(error)
                if not patient and refusals >= _IMPATIENT_TRIES:
                    raise SSHError(f"VM {self._name!r}: {self.trouble}") from error
                wait = _PAUSES[min(refusals, len(_PAUSES)) - 1]
            except KVMError:
                raise
            except Exception as error:  # noqa: BLE001  # what a server says can lead paramiko to anything
                if not deadline.expired or self.trouble == _NOTHING:  # a try cut short tells less than those before
                    self.trouble = _unanswered(error, patience)
                patience = min(patience * 1.5, _MOST_PATIENCE)
                wait, pause = pause, min(pause * 1.5, _LONGEST_PAUSE)
            # Not wait_for, which raises: the failure is to be raised without what the last try met.
            self._watch.wait_only(lambda: self._watch.failed, deadline.sooner(wait))
            if deadline.expired and not self._watch.failed:
                break
        host, port = self._address()
        limit = round(deadline.seconds or 0.0, 2)  # it may be what others have left of theirs
        raise SSHError(
            f"VM {self._name!r}: no SSH connection within {limit:g} s (through {host}:{port}); last try: {self.trouble}"
        )

    def _fall_back(self) -> bool:
        """Go on with SHA-1; return False when that has been done."""
        if self._kind is LegacyTransport:
            return False
        self._kind = LegacyTransport
        return True

    def _refusal(self, error: LoginRefused | paramiko.BadHostKeyException) -> str:
        if isinstance(error, LoginRefused):
            return f"SSH login as {self._image.ssh_user!r}: {error}"
        return (
            f"the SSH server's host key is {error.key.get_name()} {error.key.fingerprint}, "
            f"expected {error.expected_key.get_name()} {error.expected_key.fingerprint}"
        )

    def _attempt(self, deadline: Deadline, patience: float) -> paramiko.SSHClient:
        host, port = self._address()
        client = paramiko.SSHClient()
        self._pin_host_key(client, host, port)
        banner_timeout = deadline.sooner(patience).remaining()
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), timeout=banner_timeout))
            # 65 ms for each command become 20: paramiko writes small packets and waits.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stack.callback(client.close)

            def shake_hands() -> None:
                client.connect(
                    host,
                    port,
                    sock=connection,
                    banner_timeout=banner_timeout,
                    auth_timeout=deadline.sooner(_LOGIN_PATIENCE).remaining(),
                    transport_factory=lambda sock, **options: self._kind(sock, watch=self._watch, **options),
                    auth_strategy=Login(self._image.ssh_user or "root", key=self._key, password=self._image.password),
                )

            outcome = self._in_thread(shake_hands)
            if not self._watch.wait_for(outcome.done, deadline):
                raise TimeoutError("the handshake did not end in time")
            outcome.result()
            transport = client.get_transport()
            if transport is None:
                raise paramiko.SSHException("the connection was closed")
            transport.set_keepalive(_KEEPALIVE)
            stack.pop_all()
        return client

    def _in_thread(self, work: Callable[[], None]) -> Future[None]:
        """Do what waits in ways that nothing can interrupt; it ends when its connection is closed."""
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # handed over
                outcome.set_exception(error)
            else:
                outcome.set_result(None)
            self._watch.notify()

        threading.Thread(target=run, daemon=True).start()
        return outcome

    def _pin_host_key(self, client: paramiko.SSHClient, host: str, port: int) -> None:
        """Accept the guest's own host key only, if the image says which it is."""
        if self._image.ssh_host_key is None:
            client.set_missing_host_key_policy(_AcceptAny())
            return
        kind, data = self._image.ssh_host_key.split()[:2]
        try:
            key = paramiko.PKey.from_type_string(kind, base64.b64decode(data))
        except Exception as error:  # paramiko and cryptography have many for it
            raise SSHError(
                f"VM {self._name!r}: Image(ssh_host_key={self._image.ssh_host_key!r}) is no public key: "
                f"{str(error) or type(error).__name__}"
            ) from error
        client.get_host_keys().add(f"[{host}]:{port}", kind, key)


class _AcceptAny(paramiko.MissingHostKeyPolicy):
    """The guest was made a moment ago: nobody can know its key."""

    def missing_host_key(self, *_: object) -> None:
        return


def _unanswered(error: BaseException, patience: float) -> str:
    """Return in words why there is no connection."""
    if "Error reading SSH protocol banner" in str(error):
        cause = error.__context__
        if isinstance(cause, TimeoutError):
            return f"no SSH server answered within {patience:g} s"
        if isinstance(cause, (paramiko.SSHException, ValueError)):
            return f"what answered is no SSH server: {explain(cause)}"
        return "the connection was closed before an SSH server answered"
    return explain(error)
