"""Guest agents to talk to: QEMU's own on this host, and one that a test plays itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.sockets import connect
from pytest_kvm.waiting import Watch

# What no agent may do to the host that the tests run on.
FORBIDDEN = (
    *("guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid", "guest-set-time"),
    *("guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw", "guest-fstrim"),
    *("guest-set-vcpus", "guest-set-memory-blocks", "guest-set-user-password"),
    *("guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"),
)


def program() -> Path:
    """Return qemu-ga, which need not be in everybody's PATH."""
    found = shutil.which("qemu-ga", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise FileNotFoundError("qemu-ga is not installed; it is in Debian's package qemu-guest-agent")
    return Path(found)


class Host:
    """qemu-ga as a process of this host: ``process``, and the ``agent`` that talks to it."""

    def __init__(self, folder: Path, io: IOThread) -> None:
        self._io = io
        self._path = folder / "socket"
        self.watch = Watch()
        places = ["-p", str(self._path), "-t", str(folder), "-l", str(folder / "log")]
        self.process = subprocess.Popen(
            [str(program()), "-m", "unix-listen", *places, "-b", ",".join(FORBIDDEN)], stdin=subprocess.DEVNULL
        )
        try:
            self.agent = Agent(name="host", connection=self._connected(), io=io, watch=self.watch)
        except BaseException:
            self.end()
            raise

    def _connected(self) -> socket.socket:
        end = time.monotonic() + 20
        while True:
            try:
                return connect(self._path)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.005)

    def files(self) -> list[str]:
        """Return what the process has open."""
        found = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(descriptor))
        return found

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class Played:
    """A guest agent whose part a test plays: the socket's other end, a line at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")

    def request(self) -> dict[str, Any]:
        """Return the next request, and note whether it came after the mark."""
        line = self._lines.readline()
        self.marked = line.startswith(b"\xff")
        request: dict[str, Any] = json.loads(line.removeprefix(b"\xff"))
        return request

    def say(self, line: bytes) -> None:
        """Send a line."""
        self.socket.sendall(line + b"\n")

    def answer(self, value: object) -> None:
        """Send an answer."""
        self.say(json.dumps({"return": value}).encode())

    def refuse(self, desc: str, class_: str = "GenericError") -> None:
        """Send an error."""
        self.say(json.dumps({"error": {"class": class_, "desc": desc}}).encode())

    def sync(self) -> None:
        """Get in step, as qemu-ga does: the mark is an error of its own."""
        request = self.request()
        assert self.marked
        assert request["execute"] == "guest-sync-delimited"
        self.refuse("JSON parse error, stray '\ufffd'")
        self.say(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode())

    def hang_up(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.socket.close()

    def serve(self, command: str, value: object) -> dict[str, Any]:
        """Answer a command, which must be this one; return its arguments."""
        request = self.request()
        assert request["execute"] == command
        self.answer(value)
        arguments: dict[str, Any] = request.get("arguments", {})
        return arguments


Part = Callable[[Played], None]


@contextlib.contextmanager
def played(part: Part, io: IOThread, watch: Watch) -> Iterator[Agent]:
    """Yield an agent whose other end ``part`` plays; at the end of the block it must have been played to its end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    guest = Played(theirs)
    failures: list[BaseException] = []

    def play() -> None:
        try:
            part(guest)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    agent = Agent(name="vm", connection=ours, io=io, watch=watch)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield agent
        thread.join()
    finally:
        agent.close()
        thread.join()
        guest.hang_up()
        if failures:
            raise failures[0]  # whatever it has led to
