"""A terminal at a machine's serial console: what is typed goes there, what it prints comes here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pytest_kvm.errors import MachineError

# Ctrl-], as in telnet and virsh: no guest needs it.
LEAVE = b"\x1d"
_CHUNK = 1 << 16


def attach(path: Path) -> bool:
    """Connect standard input and output to the console that is shared on a socket, until it ends or Ctrl-] is typed.

    Returns whether it was Ctrl-]. At the end of an input that is no terminal, the output goes on. Raises MachineError
    when nothing is shared there.
    """
    source, target = sys.stdin.fileno(), sys.stdout.fileno()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise MachineError(
                f"{path.parent} is not the directory of a machine that somebody may attach to: {error.strerror}"
            ) from error
        with _raw(source):
            return _carry(connection, source, target)


def _carry(connection: socket.socket, source: int, target: int) -> bool:
    waiting: list[int | socket.socket] = [connection, source]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if connection in ready:
            data = connection.recv(_CHUNK)
            if not data:
                return False
            _write(target, data)
        if source in ready:
            typed = os.read(source, _CHUNK)
            before, leave, _ = typed.partition(LEAVE)
            try:
                connection.sendall(before)
            except OSError:
                return False
            if leave:
                return True
            if not typed:
                waiting.remove(source)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Let a terminal pass everything on, Ctrl-C too, until the end of the block."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what has been typed already stays
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Let these signals be what Ctrl-C is, so that what was begun is ended, and the terminal is as it was."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
