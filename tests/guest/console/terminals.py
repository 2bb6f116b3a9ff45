"""Guests to talk to on a console: scripted ones, and real shells on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pytest_kvm.guest.console.console import Console
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.console.wires import plugged

KERNEL = "[   12.345678] foo: bar 0\r\n"
CALLER = "<6>[ 1234.567890][  T123] foo 1:0:0: link is up.\r\n"
SYSTEMD = "\r\x1b[K[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mfoo.service\x1b[0m - Foo.\r\n"
STARTING = "         Starting \x1b[0;1;39mfoo.service\x1b[0m - Foo...\r\n"
WAITING = "\r\x1b[K[\x1b[0;31m*\x1b[0;1;31m*\x1b[0m\x1b[0;31m*  \x1b[0m] (1 of 2) A start job is running\r\n"
LIMIT = 20.0


class Port(SerialPort):
    """One that tells when somebody has looked at what is shown."""

    def __init__(self, *, io: IOThread, watch: Watch, log_path: Path) -> None:
        super().__init__(io=io, watch=watch, log_path=log_path)
        self.looked_at = threading.Event()

    def shown(self) -> str:
        text = super().shown()
        self.looked_at.set()
        return text


class Line:
    """A serial console whose other end is played by a test."""

    def __init__(self, port: Port, guest: socket.socket, watch: Watch, image: Image | None) -> None:
        self.port = port
        self.guest = guest
        self.watch = watch
        self.console = Console(name="vm", port=port, image=image)

    def print(self, text: str) -> None:
        """Let the guest print, and see it arrive."""
        before = self.port.received
        self.guest.sendall(text.encode())
        assert self.watch.wait_only(lambda: self.port.received >= before + len(text.encode()), Deadline(LIMIT))


@contextmanager
def line(tmp_path: Path, image: Image | None = None) -> Iterator[Line]:
    """A serial line with a console on it."""
    with ExitStack() as stack:
        io = IOThread()
        stack.callback(io.close)
        watch = Watch()
        port = Port(io=io, watch=watch, log_path=tmp_path / "console.log")
        stack.callback(port.close)
        guest = stack.enter_context(plugged(port))
        guest.settimeout(LIMIT)
        yield Line(port, guest, watch, image)


class Hangup(Exception):
    """The test is over."""


class Actor:
    """Plays getty, login and a shell. ``noise`` is printed after each ``every`` characters."""

    def __init__(self, guest: socket.socket) -> None:
        self._guest = guest
        self.noise = ""
        self.every = 3
        self.typed: list[str] = []

    @property
    def words(self) -> list[str]:
        """What was typed, without bare Enters: whether there has to be one is the timing's."""
        return [text for text in self.typed if text]

    def hang_up(self) -> None:
        self._guest.shutdown(socket.SHUT_RDWR)

    def print(self, text: str) -> None:
        if not self.noise:
            self._guest.sendall(text.encode())
            return
        for start in range(0, len(text), self.every):
            self._guest.sendall((text[start : start + self.every] + self.noise).encode())

    def key(self) -> str:
        data = self._guest.recv(1)
        if not data:
            raise Hangup
        return data.decode("latin1")

    def line(self, *, echo: bool = True) -> str:
        """Return a line that is typed."""
        text = ""
        while (key := self.key()) != "\r":
            text = "" if key == "\x15" else text + key
            if echo and key != "\x15":
                self.print(key)
        self.print("\r\n")
        self.typed.append(text)
        return text

    def drop(self, count: int) -> None:
        """Lose what is typed."""
        for _ in range(count):
            self.key()

    def getty(self) -> str:
        """Return the name that is given at a login prompt."""
        name = ""
        while not name:
            self.print("\r\nvm login: ")
            name = self.line()
        return name

    def login(self, user: str, password: str, refusal: str = "Login incorrect") -> None:
        """Ask for name and password until they are right."""
        while True:
            name = self.getty()
            self.print("Password: ")
            if self.line(echo=False) == password and name == user:
                return
            self.print(f"\r\n{refusal}\r\n")

    def shell(self, user: str = "root", prompt: str = "~ # ") -> None:
        """Run what is typed, until it is ``exit``."""
        while True:
            self.print(prompt)
            command = self.line()
            if command == "exit":
                return
            done = subprocess.run(
                ["sh", "-c", f"id() {{ echo {user}; }}; {command}"], capture_output=True, text=True, check=False
            )
            self.print((done.stdout + done.stderr).replace("\n", "\r\n"))


@contextmanager
def playing(guest: socket.socket, play: Callable[[Actor], None]) -> Iterator[Actor]:
    """Play a script in a thread; it may go on for ever. Its failures are raised at the end."""
    actor = Actor(guest)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            play(actor)
        except (Hangup, BrokenPipeError, ConnectionResetError):
            return
        except BaseException as error:  # noqa: BLE001 - it is raised where the test is
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield actor
    finally:
        with suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT)
    if failures:
        raise failures[0]


@contextmanager
def shell_on_terminal(
    guest: socket.socket, command: list[str], *, change: Callable[[bytes], bytes] = bytes, columns: int = 80
) -> Iterator[None]:
    """Run a real shell on a terminal at the end of a line; ``change`` is what happens to its output on the way.

    When it ends, a login prompt is printed.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # The first terminal that a session opens becomes its own: Ctrl-C needs that.
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(slave), *command],
        start_new_session=True,
        pass_fds=[slave],
        cwd="/",
        env={"PATH": os.environ["PATH"], "TERM": "vt100", "PS1": "[vm \\w]# ", "HOME": "/", "LC_ALL": "C"},
    )
    os.close(slave)
    stop, stopped = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([master, guest.fileno(), stop], [], [])
            if stop in ready:
                return
            if guest.fileno() in ready:
                os.write(master, guest.recv(4096))
            if master in ready:
                try:
                    data = os.read(master, 4096)
                except OSError:  # nobody has the terminal open any more
                    guest.sendall(b"\r\n\r\nvm login: ")
                    return
                guest.sendall(change(data))

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(stopped, b"x")
        thread.join(LIMIT)
        process.kill()
        process.wait()
        for descriptor in (master, stop, stopped):
            os.close(descriptor)
