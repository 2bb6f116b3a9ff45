"""SSH to the guest, through a port that QEMU forwards."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_kvm.errors import SSHError
from pytest_kvm.guest.result import decoded, shorten
from pytest_kvm.guest.runner import Ended, Runner
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Usual, Watch

if TYPE_CHECKING:
    import paramiko

    from pytest_kvm.guest.ssh.connection import Connector
    from pytest_kvm.guest.ssh.session import Read, Send, Session
    from pytest_kvm.guest.ssh.transport import GuestTransport

PORT = 22
CONNECT_TIMEOUT = Usual(30)
TRANSFER_TIMEOUT = Usual(300)
_RETRY = 1.0
# QEMU's end breaks the connection a moment before it is known, and tells more.
_NEWS_PATIENCE = 0.5


class SSH(Runner):
    """Commands and files over SSH. ``client`` is the connected paramiko.SSHClient."""

    def __init__(
        self, *, name: str, image: Image, watch: Watch, internet: bool, address: Callable[[], tuple[str, int]]
    ) -> None:
        self.name = name
        self.internet = internet
        self._image = image
        self._watch = watch
        self._address = address
        self._lock = threading.Lock()
        self._made: Connector | None = None
        self._client: paramiko.SSHClient | None = None

    def __repr__(self) -> str:
        return f"<SSH to VM {self.name!r}, as {self._image.ssh_user}>"

    # The connection

    @property
    def client(self) -> paramiko.SSHClient:
        """The connected client; connects first, and again after a connection was lost. Raises SSHError."""
        return self._connected(self._watch.deadline(CONNECT_TIMEOUT))

    def connect(self, *, timeout: float | None = CONNECT_TIMEOUT) -> paramiko.SSHClient:
        """Return a new connection of its own; ``timeout`` in seconds is for all tries.

        Raises SSHError. A login that is refused is tried twice.
        """
        return self._connector.connect(self._watch.deadline(timeout), patient=False)

    @property
    def _connector(self) -> Connector:
        from pytest_kvm.guest.ssh.connection import Connector

        if self._made is None:
            self._made = Connector(name=self.name, image=self._image, watch=self._watch, address=self._address)
        return self._made

    def _connected(self, deadline: Deadline, *, patient: bool = False) -> paramiko.SSHClient:
        with self._connecting(deadline):
            client = self._client
            if client is None or _over(client):
                self.close()
                client = self._client = self._connector.connect(deadline, patient=patient)
            return client

    @property
    def connected(self) -> bool:
        """Whether a connection is there that a command could take."""
        return self._client is not None and not _over(self._client)

    @contextlib.contextmanager
    def _connecting(self, deadline: Deadline) -> Iterator[None]:
        left = deadline.remaining()
        if not self._lock.acquire(timeout=-1 if left is None else left):
            raise SSHError(f"VM {self.name!r}: another thread is still connecting, after {deadline.seconds or 0.0:g} s")
        try:
            yield
        finally:
            self._lock.release()

    def ready(self, deadline: Deadline) -> str | None:
        """Wait until a command has run; return what the last try met when the deadline came first.

        Raises SSHError when waiting is in vain, such as for an account that may not run commands.
        """
        from pytest_kvm.guest.ssh.login import excuse

        self.close()  # from before a reset, say: it would look alive
        trouble = "nothing was tried"
        while deadline.remaining() != 0.0:
            try:
                self._connected(deadline, patient=True)
            except SSHError:
                if deadline.remaining() != 0.0:
                    raise
                return self._connector.trouble
            try:
                ended = self._execute("true", "true", None, deadline)
            except SSHError as error:
                trouble = str(error)
            else:
                if ended.status == 0:
                    return None
                said = decoded(ended.out + ended.err)
                if reason := excuse(said):
                    raise self._no_account(reason)
                trouble = "command 'true' did not end" if ended.status is None else f"'true' returned {ended.status}"
            self._watch.wait_only(lambda: self._watch.failed, deadline.sooner(_RETRY))
            self._watch.check()
        return trouble

    def _no_account(self, reason: str) -> SSHError:
        return SSHError(
            f"VM {self.name!r}: SSH logs in as {self._image.ssh_user!r}, but this user is not to run commands; "
            f"the guest says: {reason}"
        )

    def lose(self, reason: str) -> None:
        """Give up the connection, which the guest has forgotten; commands in flight end with this reason."""
        client = self._client
        transport = None if client is None else client.get_transport()
        if transport is not None:
            cast("GuestTransport", transport).give_up(reason)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    # Commands

    @property
    def _waits_on(self) -> Watch:
        return self._watch

    @property
    def via(self) -> str:
        """The way and the user."""
        return f"SSH, as {self._image.ssh_user}"

    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        def feed(send: Send) -> None:
            send(data or b"")

        session = self.carry_out(script, f"command {shorten(shown)}", deadline, produce=feed if data else None)
        out, err = bytes(session.out), bytes(session.err)
        flooded = session.flooded
        if flooded or not session.complete:
            killed = session.kill()
            if not session.opened:
                return Ended(None, out, err, "was never started: the guest's SSH server did not answer")
            return Ended(None, out, err, "was killed" if killed else "could not be killed", flooded)
        return Ended(session.status, out, err)

    def carry_out(
        self,
        script: str,
        what: str,
        deadline: Deadline,
        *,
        produce: Callable[[Send], None] | None = None,
        consume: Callable[[Read], None] | None = None,
    ) -> Session:
        """Run a script, and return its session when it has ended, or the deadline has come.

        ``what`` is said in errors. A connection that had died before is replaced. Raises SSHError for one that is lost.
        """
        from pytest_kvm.guest.ssh.session import Session

        data = script.encode(errors="surrogateescape")
        started = time.monotonic()
        again = True
        while True:
            client = self._connected(deadline.sooner(self._watch.limit(CONNECT_TIMEOUT)))
            transport = cast("GuestTransport | None", client.get_transport())
            if transport is None:
                raise SSHError(f"VM {self.name!r}: the SSH connection was closed before {what}")
            session = Session(transport, data, watch=self._watch, produce=produce, consume=consume)
            in_time = session.wait(deadline)
            if session.complete or not in_time or (session.failure is not None and transport.is_active()):
                return session
            if again and not session.opened and not transport.is_active():
                again = False  # it was dead before, and nobody had noticed
                continue
            raise self._lost(session, what, time.monotonic() - started)

    def _lost(self, session: Session, what: str, seconds: float) -> SSHError:
        from pytest_kvm.guest.ssh.transport import explain

        if session.transport.is_active():
            reason = explain(session.trouble) if session.trouble is not None else "it gave no exit status"
            return SSHError(f"VM {self.name!r}: the guest's SSH server did not carry out {what}: {reason}")
        self._watch.wait_only(lambda: self._watch.failed, Deadline(_NEWS_PATIENCE))
        self._watch.check()
        reason = session.transport.reason(session.trouble)
        return SSHError(f"VM {self.name!r}: SSH connection lost under {what}, after {seconds:.1f} s: {reason}")

    # Files

    def put(
        self,
        local: str | os.PathLike[str] | bytes,
        remote: str | os.PathLike[str],
        *,
        mode: int | None = None,
        timeout: float | None = TRANSFER_TIMEOUT,
    ) -> str:
        """Copy a file, or a directory with all that is in it, into the guest; return its path there.

        ``local`` is a path, or bytes that are the file's contents. ``remote`` is the new name, or a directory that
        exists, which the copy gets into under its own name; relative paths begin where the user logs in. Permissions
        are kept (0o644 for bytes), ``mode`` sets others for a file; the owner is who logs in. A directory of that name
        is merged with the copy. A file appears under its name when it is complete; what is no file, such as a device,
        is written to. ``timeout`` is in seconds, for all of it. The guest needs a shell, cat and tar, no SFTP server.

        Raises OSError for what is wrong with ``local``, TransferError with the guest's words for what is wrong there,
        WaitTimeout, and another MachineError when the guest or the connection is lost.
        """
        from pytest_kvm.guest.ssh.put import put

        return put(self, local, os.fspath(remote), mode=mode, timeout=self._watch.limit(timeout))

    def get(
        self,
        remote: str | os.PathLike[str],
        local: str | os.PathLike[str],
        *,
        mode: int | None = None,
        timeout: float | None = TRANSFER_TIMEOUT,
    ) -> Path:
        """Copy a file, or a directory with all that is in it, out of the guest; return its path here.

        As in ``put``, the other way round. Nothing is ever written outside of ``local``: a directory in which there are
        links that lead out of it, or devices, is refused with a TransferError. Files of /proc and /sys can be copied
        one by one.
        """
        from pytest_kvm.guest.ssh.get import get

        return get(self, os.fspath(remote), local, mode=mode, timeout=self._watch.limit(timeout))


def _over(client: paramiko.SSHClient) -> bool:
    transport = client.get_transport()
    return transport is None or not transport.is_active()
