"""The sockets between us and QEMU: made by us before QEMU starts, so that nobody ever waits for them to appear."""

from __future__ import annotations

import socket
from pathlib import Path

from pytest_kvm.errors import HostError

# sun_path has 108 bytes with the final NUL (unix(7)); longer ones abort a running QEMU 7.2.
PATH_LIMIT = 107


def check_path(path: Path) -> Path:
    """Return ``path`` if an AF_UNIX socket can be made there; raises HostError when it is too long."""
    length = len(bytes(path))
    if length > PATH_LIMIT:
        raise HostError(
            f"the socket path {path} has {length} bytes, AF_UNIX allows {PATH_LIMIT}",
            hint="set TMPDIR to a shorter directory",
        )
    return path


class Listener:
    """A listening AF_UNIX socket for QEMU's ``-chardev socket,fd=…,server=on``."""

    def __init__(self, path: Path) -> None:
        self.path = check_path(path)
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.bind(str(path))
            self.socket.listen(4)
        except BaseException:
            self.socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that QEMU inherits."""
        return self.socket.fileno()

    def connect(self) -> socket.socket:
        """Connect to it; the connection waits in the backlog until QEMU accepts."""
        return connect(self.path)

    def close(self) -> None:
        """Close our copy; QEMU keeps its own."""
        self.socket.close()


def connect(path: Path) -> socket.socket:
    """Return a non-blocking connection to the AF_UNIX socket at ``path``."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(path))
        client.setblocking(False)
    except BaseException:
        client.close()
        raise
    return client
