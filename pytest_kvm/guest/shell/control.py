"""The control port of the guest's shell: one request after the other, such as a signal for a lane's command."""

from __future__ import annotations

import asyncio
import socket

from pytest_kvm.errors import ShellLost
from pytest_kvm.guest.lines import Lines

# The guest answers within milliseconds, unless it is not running at all.
_PATIENCE = 5.0
# Bytes of an answer: a number and a status.
_LONGEST_LINE = 100


class Control:
    """The host's end of images/builtin/rootfs/lib/kvm/control; everything here runs in the I/O thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._receive)
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._count = 0
        self._lines = Lines(_LONGEST_LINE)

    async def ask(self, request: str, *, patience: float = _PATIENCE) -> str:
        """Send a request and return the guest's status; raises ShellLost when no answer comes in so many seconds."""
        self._count += 1
        number = str(self._count)
        answer: asyncio.Future[str] = self._loop.create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(patience):
                await self._loop.sock_sendall(self._connection, f"{number} {request}\n".encode())
                return await answer
        except (BrokenPipeError, ConnectionResetError):
            raise ShellLost(f"the connection to QEMU broke under the request {request!r}") from None
        except TimeoutError:
            raise ShellLost(f"the guest did not answer the request {request!r} within {patience:g} s") from None
        finally:
            del self._asked[number]

    def _receive(self) -> None:
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._connection)
            self.lose()
            return
        for line in self._lines.feed(data):
            number, _, status = (line or b"").decode(errors="backslashreplace").partition(" ")
            answer = self._asked.get(number)
            if answer is not None and not answer.done():
                answer.set_result(status)

    def lose(self) -> None:
        """The guest's end is gone: no request in flight will be answered."""
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ShellLost("the guest's shell went away"))

    def close(self) -> None:
        """Close the connection."""
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self.lose()
