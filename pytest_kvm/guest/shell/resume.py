"""What a clone has to be told when it comes to itself: the time of day, and that its random numbers are used up."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time

from pytest_kvm.images.builtin.programs import ENTROPY_BYTES

PORT = "resume"
# The guest's clock is behind by at most the time that the answer took, so a slow one (the first: nothing has been
# translated yet) is not enough.
CLOSE_ENOUGH = 0.1
TRIES = 5
_ANSWER = 8
_PIECE = 4 << 10
_MOST = 64 << 10


def request() -> tuple[bytes, bytes]:
    """Return what sets a clock to the present time and brings fresh random numbers, and the answer to it."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    # struct timespec, struct rand_pool_info (include/uapi/linux/random.h)
    numbers = struct.pack("=qqii", seconds, nanoseconds, 8 * ENTROPY_BYTES, ENTROPY_BYTES)
    return numbers + os.urandom(ENTROPY_BYTES), numbers[:_ANSWER]


class Resume:
    """The host's end of the port on which images/builtin/programs.py's ``resume`` listens. In the I/O thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def repair(self) -> None:
        """Set the guest's clock and reseed its random number generator; returns when that is done.

        Waits as long as there is no answer; raises OSError when the connection breaks, or something else is said.
        """
        for _ in range(TRIES):
            began = time.monotonic()
            data, answer = request()
            await self._loop.sock_sendall(self._connection, data)
            await self._answer(answer)
            if time.monotonic() - began < CLOSE_ENOUGH:
                return

    async def _answer(self, wanted: bytes) -> None:
        said, size = b"", 0
        while wanted not in said:  # one to an earlier request may still come
            data = await self._loop.sock_recv(self._connection, _PIECE)
            if not data:
                raise ConnectionResetError("the machine went off")
            size += len(data)
            if size > _MOST:
                # It never runs dry: waiting for more would not even let anybody else in this thread have a turn.
                raise OSError(errno.EPROTO, f"the guest said {size} bytes of something else")
            said = (said + data)[-_PIECE - _ANSWER :]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
