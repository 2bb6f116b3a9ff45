"""A web server on loopback that does with each path what it was told, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message

from pytest_kvm.images.fetching.checksum import Checksum

# A disk: of several pieces as it is sent, and nowhere like itself elsewhere.
DATA = hashlib.shake_256(b"disk").digest(300_000)
CHECKSUM = Checksum("sha256", hashlib.sha256(DATA).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, self.headers))
            acts = self.server.acts.get(self.path, [status(404)])
            act = acts.pop(0) if len(acts) > 1 else acts[0]
        act(self)

    def do_CONNECT(self) -> None:
        """Be a proxy for https."""
        self.server.asked.append((self.path, self.headers))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            to = {self.connection: other, other: self.connection}
            while ready := select.select(list(to), [], [], 30)[0]:
                pieces = [(end, end.recv(1 << 16)) for end in ready]
                for end, piece in pieces:
                    to[end].sendall(piece)
                if not all(piece for _, piece in pieces):
                    break
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def head(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()


Act = Callable[[Handler], None]


class Server(http.server.ThreadingHTTPServer):
    """``acts`` says what happens at each path: one act after another, the last one again and again."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._context = context
        self.lock = threading.Lock()
        self.acts: dict[str, list[Act]] = {}
        self.asked: list[tuple[str, Message]] = []
        # Set when the test is over: whoever hangs may go.
        self.over = threading.Event()

    def at(self, path: str, *acts: Act) -> str:
        """Have acts done at a path; return its address."""
        self.acts[path] = list(acts)
        return self.url(path)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"{'https' if self._context else 'http'}://{self.host}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    @property
    def ranges(self) -> list[str | None]:
        return [headers["Range"] for _, headers in self.asked]

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self._context is not None:  # the handshake is the handler's: here it would keep others waiting
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away, or does not like the certificate."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def status(code: int) -> Act:
    return lambda handler: handler.head(code, Content_Length=0)


def redirect(url: str) -> Act:
    return lambda handler: handler.head(302, Location=url, Content_Length=0)


def file(
    data: bytes, *, tag: str = '"one"', end: int | None = None, then: Act | None = None, ranges: bool = True
) -> Act:
    """Serve ``data``, or the part that is asked for, of the version ``tag``; up to ``end`` only, and ``then`` more."""

    def act(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        start = int(asked[1]) if asked and ranges and handler.headers["If-Range"] == tag else 0
        if start:
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.head(206, ETag=tag, Content_Length=len(data) - start, Content_Range=span)
        else:
            handler.head(200, ETag=tag, Content_Length=len(data))
        handler.wfile.write(data[start:end])
        if then is not None:
            then(handler)

    return act


def chunked(data: bytes) -> Act:
    """Serve ``data`` without saying how much it is."""

    def act(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    return act


def hang(handler: Handler) -> None:
    handler.server.over.wait(30)


def hang_up(handler: Handler) -> None:
    """Give the other side "Connection reset by peer"."""
    now = struct.pack("ii", 1, 0)  # do not linger: closing is a reset
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    os.close(handler.connection.detach())  # close() would wait for the handler's streams
