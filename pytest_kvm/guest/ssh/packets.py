"""What an SSH server may send: limits that paramiko does not have.

It imports paramiko, and is to be imported when a connection is made.
"""

from __future__ import annotations

import socket
import time

import paramiko
from paramiko.common import MSG_USERAUTH_INFO_REQUEST
from paramiko.packet import Packetizer

# RFC 4253, section 6.1, asks for 35,000 bytes; OpenSSH takes 256 KiB (PACKET_MAX_SIZE). paramiko would take 4 GiB.
LONGEST_PACKET = 256 << 10
# The version, and the lines that a server may send before it (RFC 4253, section 4.2).
LONGEST_GREETING = 64 << 10
_MSG_EXT_INFO = 7


class GuestPacketizer(Packetizer):
    """paramiko's, which takes packets of any length, and greetings without end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._greeting = 0
        self._greeted_since: float | None = None

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Return ``n`` bytes."""
        if not 0 <= n <= LONGEST_PACKET:
            raise paramiko.SSHException(f"the server announces a packet of {n} bytes")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        """Return what comes next of a line; the time is for all of it."""
        if self._greeted_since is None:
            self._greeted_since = time.monotonic()
        left = self._greeted_since + timeout - time.monotonic()
        if left <= 0:
            raise TimeoutError
        data: bytes = super()._read_timeout(left)  # type: ignore[misc]  # not in the stubs
        self._greeting += len(data)
        if self._greeting > LONGEST_GREETING:
            raise paramiko.SSHException(f"the server's greeting has more than {LONGEST_GREETING} bytes")
        return data

    def readline(self, timeout: float) -> str:
        """Return a line of the greeting."""
        self._greeted_since = None
        return super().readline(timeout)

    def read_message(self) -> tuple[int, paramiko.Message]:
        """Return the next message; paramiko believes what one says of the number of its parts."""
        kind, message = super().read_message()
        if kind == _MSG_EXT_INFO:
            _check_count(message, message.get_int())
        elif kind == MSG_USERAUTH_INFO_REQUEST:
            for _ in range(3):  # a name, an instruction, a language
                message.get_binary()
            _check_count(message, message.get_int())
        message.rewind()
        return kind, message


def _check_count(message: paramiko.Message, count: int) -> None:
    # Each part has the length of a text, at least.
    if count > len(message.asbytes()) // 4:
        raise paramiko.SSHException(f"the server announces {count} parts of a message that has none of them")
