"""A terminal at a console, and what leaves it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pexpect
import pytest

from pytest_kvm.host.rundir import make_run_dir

ATTACH = [sys.executable, "-m", "pytest_kvm", "attach"]
TIMEOUT = 30


class Console:
    """What shares a console, in place of a machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "attach"))
        self._listener.listen()
        self._listener.settimeout(TIMEOUT)

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(TIMEOUT)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def console() -> Iterator[Console]:
    with ExitStack() as stack:
        folder = stack.enter_context(make_run_dir())
        made = Console(folder)
        stack.callback(made.close)
        yield made


def spawn(console: Console) -> pexpect.spawn[str]:
    return pexpect.spawn(ATTACH[0], [*ATTACH[1:], str(console.folder)], encoding="utf-8", timeout=TIMEOUT)


def receive(guest: socket.socket, size: int) -> bytes:
    """Return so much of what was typed, or all until the end."""
    found = b""
    while len(found) < size and (data := guest.recv(size - len(found))):
        found += data
    return found


def ended(terminal: pexpect.spawn[str]) -> int | None:
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus


def test_typing_and_leaving(console: Console) -> None:
    terminal = spawn(console)
    with console.accept() as guest:
        terminal.expect_exact("Ctrl-] leaves it.")
        guest.sendall(b"login: ")
        terminal.expect_exact("login: ")
        # Nothing is for the terminal itself, neither Ctrl-C nor the end of a line; and there is no echo.
        terminal.send("root\r\x03\x04")
        assert receive(guest, 7) == b"root\r\x03\x04"
        guest.sendall(b"# ")
        terminal.expect_exact("# ")
        assert terminal.before == ""
        terminal.send("x\x1dy")
        assert receive(guest, 10) == b"x"
    assert ended(terminal) == 0


def test_the_machine_ends(console: Console) -> None:
    terminal = spawn(console)
    with console.accept() as guest:
        guest.sendall(b"reboot: Power down\r\n")
    terminal.expect_exact("Power down\r\n")
    terminal.expect_exact("The machine has ended.")
    assert ended(terminal) == 0


def test_the_terminal_is_as_it_was(console: Console) -> None:
    shell = pexpect.spawn(
        "sh", ["-c", f"{' '.join(ATTACH)} {console.folder}; stty -a"], encoding="utf-8", timeout=TIMEOUT
    )
    with console.accept() as guest:
        guest.sendall(b"# ")
        shell.expect_exact("# ")
        shell.send("\x1d")
        shell.expect_exact(" icanon")
        assert ended(shell) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals(console: Console, number: signal.Signals) -> None:
    terminal = spawn(console)
    before = termios.tcgetattr(terminal.child_fd)
    with console.accept() as guest:
        guest.sendall(b"# ")
        terminal.expect_exact("# ")
        assert termios.tcgetattr(terminal.child_fd) != before
        terminal.kill(number)
        assert guest.recv(1) == b""
        assert terminal.wait() == 130
    assert termios.tcgetattr(terminal.child_fd) == before


def test_without_a_terminal(console: Console) -> None:
    with ThreadPoolExecutor() as pool:
        command = [*ATTACH, str(console.folder)]
        done = pool.submit(subprocess.run, command, input=b"echo 1\n", capture_output=True, check=True)
        with console.accept() as guest:
            assert receive(guest, 7) == b"echo 1\n"
            guest.sendall(b"1\r\n")
        assert done.result(TIMEOUT).stdout == b"1\r\n"


def test_nobody_there(tmp_path: Path) -> None:
    result = subprocess.run([*ATTACH, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    wrong = f"{tmp_path} is not the directory of a machine that somebody may attach to"
    assert result.stderr == f"pytest-kvm: {wrong}: No such file or directory\n"
