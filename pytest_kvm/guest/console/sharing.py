"""The serial console for other programs, beside the test: whoever connects to a socket sees it, and types on it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.sockets import check_path

_CHUNK = 1 << 12
# Output that a connection may be behind by; one that is further behind is closed: the guest does not wait for it.
_BEHIND = 4 << 20


class SharedConsole:
    """A serial console, shared on the AF_UNIX socket ``path`` from its making until it is closed.

    Each connection is shown the last output first, and ends when the machine goes off. Raises OSError when the socket
    cannot be made.
    """

    def __init__(self, port: SerialPort, path: Path, *, io: IOThread) -> None:
        self.path = check_path(path)
        self._port = port
        self._io = io
        self._connections: set[asyncio.Task[None]] = set()
        self._server = io.run(asyncio.start_unix_server(self._accept, path))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def show(data: bytes) -> None:
            if writer.transport.get_write_buffer_size() > _BEHIND:
                writer.transport.abort()
            elif not data:
                writer.close()
            elif not writer.is_closing():
                writer.write(data)

        self._port.follow(show)
        try:
            # Either end may go away: whoever connected, or the machine.
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK):
                    await self._port.write_async(data)
        finally:
            self._port.unfollow(show)
            writer.close()

    def close(self) -> None:
        """End all connections, and take no more."""
        self._io.run(self._close())
        self.path.unlink(missing_ok=True)

    async def _close(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
