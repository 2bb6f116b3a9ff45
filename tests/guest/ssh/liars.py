"""SSH servers that do what they like: from their first byte on, or when they have let somebody in."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from pytest_kvm.spec.image import Image
from tests.guest.ssh.sshd import Handler, Server

IMAGE = Image("disk", name="liar", ssh_user="bob")
LIMIT = 20.0


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[Server]:
    """Yield a server that does this with each connection, in a thread of its own."""
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        def work() -> None:
            with contextlib.suppress(OSError):
                handler(connection)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()

    server = Server(serve)
    try:
        yield server
    finally:
        for connection in server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in threads:
            thread.join(LIMIT)


Part = Callable[[paramiko.Transport, paramiko.Channel, bytes], None]
"""What becomes of a command: it gets the connection, the channel and the command."""


Ask = Callable[[paramiko.Transport], None]
"""What is asked when somebody logs in, by whom nobody is let in."""


class Interface(paramiko.ServerInterface):
    """Lets everybody in, and does its part with each command."""

    def __init__(
        self, transport: paramiko.Transport, part: Part, asks: Callable[[paramiko.Transport], None] | None
    ) -> None:
        self._transport = transport
        self._part = part
        self._asks = asks

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive" if self._asks is not None else "none"

    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL if self._asks is None else AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: object) -> int:
        if self._asks is not None:
            self._asks(self._transport)
        return AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def work() -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                # The end of the input comes after the client knows that the command has begun.
                while channel.recv(1 << 16):
                    pass
                self._part(self._transport, channel, command)

        threading.Thread(target=work, daemon=True).start()
        return True


def liar(part: Part, *, asks: Ask | None = None) -> Handler:
    """Return what serves a connection as a server would that lets everybody in."""
    key = paramiko.ECDSAKey.generate()

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        with contextlib.suppress(paramiko.SSHException, EOFError):
            transport.start_server(server=Interface(transport, part, asks))
            transport.join(LIMIT)

    return serve


def message(kind: int, *parts: object) -> paramiko.Message:
    """Return a message: numbers, texts, bytes as they are, and True and False."""
    made = paramiko.Message()
    made.add_byte(bytes([kind]))
    for part in parts:
        if isinstance(part, bool):
            made.add_boolean(part)
        elif isinstance(part, int):
            made.add_int(part)
        elif isinstance(part, str):
            made.add_string(part)
        elif isinstance(part, bytes):
            made.add_bytes(part)
    return made


def send(transport: paramiko.Transport, *messages: paramiko.Message) -> None:
    """Send messages past all that a good server minds."""
    for each in messages:
        transport._send_message(each)  # type: ignore[attr-defined]
