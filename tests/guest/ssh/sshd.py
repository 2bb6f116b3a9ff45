"""A guest's SSH server without a guest: OpenSSH's sshd on loopback, started for each connection as inetd did it.

So the kernel chooses the port, and a test decides what becomes of each connection.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import paramiko

from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.guest.ssh.transport import GuestTransport
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Watch

Handler = Callable[[socket.socket], None]
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "/usr/sbin/sshd"


def transport_of(client: paramiko.SSHClient) -> GuestTransport:
    """Return a client's transport, which is ours."""
    transport = client.get_transport()
    assert isinstance(transport, GuestTransport)
    return transport


def make_key(path: Path, kind: str, *words: str, passphrase: str = "") -> Path:
    """Let ssh-keygen make a private key, with the public one beside it."""
    size = ["-b", "2048"] if kind == "rsa" else []  # made in half the time
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-f", path, *words], check=True)
    return path


class Server:
    """Accepts connections; ``handlers`` are for those that come first, in order, and ``handler`` is for the others."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.handlers: list[Handler] = []
        self.accepted = 0
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            handler = self.handlers.pop(0) if self.handlers else self.handler
            handler(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self.connections:
            connection.close()


def silent(_connection: socket.socket) -> None:
    """Behave like QEMU's port while nothing listens in the guest."""


def hang_up(connection: socket.socket) -> None:
    """Behave like a server that is full."""
    connection.close()


def reset(connection: socket.socket) -> None:
    """Behave like a guest where nobody listens."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Daemon(Server):
    """OpenSSH's server, with lines of its configuration; ``image`` is how to get into it."""

    def __init__(self, folder: Path, keys: Path, *config: str, host_key: str = "ed25519") -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "sshd.log"
        self._config = folder / "sshd_config"
        self._processes: list[subprocess.Popen[bytes]] = []
        own = (
            f"HostKey {keys / f'host_{host_key}'}",
            f"AuthorizedKeysFile {keys / 'authorized_keys'}",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "PrintMotd no",
            f"SetEnv HOME={folder}",  # the tester's own shell profile takes its time
        )
        self._config.write_text("\n".join([*config, *own, ""]))  # what is said first counts
        public = (keys / f"host_{host_key}.pub").read_text()
        self.image = Image(
            "disk", name="sshd", ssh_user=getpass.getuser(), ssh_key=keys / "client_ed25519", ssh_host_key=public
        )
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # where sshd locks itself up
        super().__init__(self._serve)

    def _serve(self, connection: socket.socket) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [SSHD, "-i", "-e", "-f", str(self._config)],
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        connection.close()

    def break_off(self) -> None:
        """Kill what serves connections."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it has a process for each user
            process.wait()

    def close(self) -> None:
        super().close()
        self.break_off()


@contextlib.contextmanager
def ssh_to(server: Server, image: Image, watch: Watch | None = None, **changes: object) -> Iterator[SSH]:
    """Give what a machine's ``ssh`` is, for a server."""
    image = replace(image, **changes)  # type: ignore[arg-type]
    ssh = SSH(name="vm", image=image, watch=watch or Watch(), internet=False, address=lambda: server.address)
    try:
        yield ssh
    finally:
        ssh.close()
