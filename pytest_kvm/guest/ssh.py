"""SSH to the guest, through a port that QEMU forwards."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_kvm.errors import CommandTimeout, SSHError
from pytest_kvm.guest.result import shorten
from pytest_kvm.guest.runner import Ended, Runner
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    import paramiko

PORT = 22
# QEMU accepts on a forwarded port before anything listens in the guest: only the banner tells that somebody is there.
_BANNER_PATIENCE = 5.0
_RETRY = 0.2
CONNECT_TIMEOUT = 30.0


class SSH(Runner):
    """Commands over SSH. ``client`` is the connected paramiko.SSHClient."""

    def __init__(
        self, *, name: str, image: Image, watch: Watch, internet: bool, address: Callable[[], tuple[str, int]]
    ) -> None:
        self.name = name
        self.internet = internet
        self._image = image
        self._watch = watch
        self._address = address
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None

    @property
    def client(self) -> paramiko.SSHClient:
        """The connected client; connects first, and again after a connection was lost. Raises SSHError."""
        return self._connected(CONNECT_TIMEOUT)

    def _connected(self, timeout: float | None) -> paramiko.SSHClient:
        with self._lock:
            if self._client is not None:
                transport = self._client.get_transport()
                if transport is not None and transport.is_active():
                    return self._client
                self._client.close()
            self._client = self.connect(timeout=timeout)
            return self._client

    def ready(self, deadline: Deadline) -> bool:
        """Wait until a command has run; return False when the deadline came first."""
        try:
            self.close()  # from before a reset, say: it would look alive
            self._connected(deadline.remaining())
            self.run("true", timeout=deadline.remaining())
        except (SSHError, CommandTimeout):
            if deadline.expired:
                return False
            raise
        return True

    def connect(self, *, timeout: float | None = CONNECT_TIMEOUT) -> paramiko.SSHClient:
        """Return a new connection of its own; ``timeout`` in seconds is for all tries. Raises SSHError."""
        import paramiko

        deadline = Deadline(timeout)
        trouble: Exception = SSHError("nothing was tried")
        while True:
            self._watch.check()
            try:
                return self._connect_once(deadline)
            except paramiko.AuthenticationException as error:
                raise SSHError(
                    f"VM {self.name!r}: SSH refused the login as {self._image.ssh_user!r}: {error}"
                ) from error
            except (paramiko.SSHException, OSError, EOFError) as error:
                trouble = error
            if self._watch.wait_only(lambda: self._watch.failed, deadline.sooner(_RETRY)):
                self._watch.check()
            if deadline.expired:
                break
        host, port = self._address()
        raise SSHError(
            f"VM {self.name!r}: no SSH connection within {timeout or 0.0:g} s (through {host}:{port}); last try: "
            f"{trouble or type(trouble).__name__}"
        ) from trouble

    def _connect_once(self, deadline: Deadline) -> paramiko.SSHClient:
        import paramiko

        host, port = self._address()
        patience = deadline.sooner(_BANNER_PATIENCE).remaining()
        connection = socket.create_connection((host, port), timeout=patience)
        # 65 ms for each command become 20: paramiko writes small packets and waits.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = paramiko.SSHClient()
        try:
            self._pin_host_key(client, host, port)
            key = paramiko.Ed25519Key.from_private_key_file(str(self._image.ssh_key)) if self._image.ssh_key else None
            client.connect(
                host,
                port,
                username=self._image.ssh_user,
                password=self._image.password,
                pkey=key,
                sock=connection,
                allow_agent=False,
                look_for_keys=False,
                banner_timeout=patience,
                auth_timeout=deadline.remaining(),
            )
        except BaseException:
            client.close()
            connection.close()
            raise
        return client

    def _pin_host_key(self, client: paramiko.SSHClient, host: str, port: int) -> None:
        """Accept the guest's own host key only, if the image says which it is."""
        import paramiko

        if self._image.ssh_host_key is None:
            client.set_missing_host_key_policy(_accept_any())
            return
        kind, data = self._image.ssh_host_key.split()[:2]
        key = paramiko.Ed25519Key(data=base64.b64decode(data))
        client.get_host_keys().add(f"[{host}]:{port}", kind, key)

    @property
    def via(self) -> str:
        """The way and the user."""
        return f"SSH, as {self._image.ssh_user}"

    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        import paramiko

        transport = self._connected(deadline.sooner(CONNECT_TIMEOUT).remaining()).get_transport()
        if transport is None:
            raise SSHError(f"VM {self.name!r}: the SSH connection was closed")
        try:
            channel = transport.open_session(timeout=deadline.remaining())
        except paramiko.SSHException as error:
            self._watch.check()
            raise SSHError(f"VM {self.name!r}: SSH connection lost before command {shorten(shown)}: {error}") from error
        session = _Session(channel, script, data, self._watch)
        try:
            in_time = self._watch.wait_for(session.ended, deadline)
        finally:
            channel.close()  # in time, there is nothing left; else the guest's SSH server ends the session
        if not in_time:
            return Ended(None, bytes(session.out), bytes(session.err))
        status = channel.exit_status
        if session.trouble is not None or status < 0:
            self._watch.check()
            reason = f": {session.trouble}" if session.trouble else ""
            raise SSHError(f"VM {self.name!r}: SSH connection lost under command {shorten(shown)}{reason}")
        return Ended(status, bytes(session.out), bytes(session.err))

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


class _Session:
    """One command on a channel: both output streams are read at once, so that neither fills its window."""

    def __init__(self, channel: paramiko.Channel, script: str, data: bytes | None, watch: Watch) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.trouble: Exception | None = None
        self._channel = channel
        self._watch = watch
        self._working = 2
        # paramiko waits in ways that nothing can interrupt: it does so in threads, and we wait for them.
        threading.Thread(target=self._work, args=(self._converse, script, data or b""), daemon=True).start()
        threading.Thread(target=self._work, args=(self._read, channel.recv_stderr, self.err), daemon=True).start()

    def ended(self) -> bool:
        """Return whether both streams and the status have come."""
        return self._working == 0

    def _work(self, work: Callable[..., None], *arguments: object) -> None:
        import paramiko

        try:
            work(*arguments)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.trouble = error
        finally:
            with self._watch:
                self._working -= 1
                self._watch.notify()

    def _converse(self, script: str, data: bytes) -> None:
        self._channel.exec_command(script)
        threading.Thread(target=self._send, args=(data,), daemon=True).start()
        self._read(self._channel.recv, self.out)
        self._channel.recv_exit_status()

    def _read(self, receive: Callable[[int], bytes], into: bytearray) -> None:
        while data := receive(1 << 16):
            into += data

    def _send(self, data: bytes) -> None:
        # A command need not read its standard input to the end.
        with contextlib.suppress(OSError):
            self._channel.sendall(data)
            self._channel.shutdown_write()


def _accept_any() -> paramiko.MissingHostKeyPolicy:
    import paramiko

    class AcceptAny(paramiko.MissingHostKeyPolicy):
        """The guest was made a moment ago: nobody can know its key."""

        def missing_host_key(self, *_: object) -> None:
            return

    return AcceptAny()
