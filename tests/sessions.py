"""pytest sessions in processes of their own, to be ended in every way there is."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from pytest_kvm.waiting import Deadline

# Whoever a session starts inherits it: that is how its processes are found, and no others.
_MARK = "PYTEST_KVM_TESTED_SESSION"
# Other sessions on this host are nothing that it waits for, or fails of.
NO_BUDGET = ("--kvm-memory-budget=off", "--kvm-max-vcpus=off")
# Of a process that was told to end, on a host that is busy (seconds).
PATIENCE = 180.0


class Session:
    """A pytest session that runs the files in a folder, with a directory of its own for ``temporary`` files.

    ``within`` is a command that runs the one that follows it.
    """

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self._temporary = temporary
        self._mark = uuid4().hex
        self._environment = {**os.environ, "TMPDIR": str(temporary), _MARK: self._mark, **(environment or {})}
        command = [
            *within,
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--kvm-strict",
            *NO_BUDGET,
            *options,
        ]
        self._log = folder / f"session-{self._mark}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=self._environment, start_new_session=True, stdout=log, stderr=log
            )

    def end(self) -> int:
        """Wait for pytest's end and return its exit status."""
        return self.process.wait(timeout=PATIENCE)

    def heard(self, fifo: Path) -> str:
        """Return what it writes to a named pipe, when it does; fails when it ends, or does nothing for a long time."""
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        with open(reader) as pipe, open(os.pidfd_open(self.process.pid)) as ended:
            ready, _, _ = select.select([pipe, ended], [], [], PATIENCE)
            assert pipe in ready, self.said()
            os.set_blocking(reader, True)
            return pipe.read()

    def processes(self, name: str = "") -> list[int]:
        """Return the ids of its processes that have not ended, of programs whose name begins so."""
        return processes(f"{_MARK}={self._mark}", name)

    def gone(self, seconds: float, name: str = "") -> bool:
        """Wait until all of its processes have ended, so many seconds at most; return whether they have."""
        return gone(f"{_MARK}={self._mark}", seconds, name)

    def left(self) -> list[Path]:
        """Return the machines' directories that are there."""
        return sorted(self._temporary.glob("pytest-kvm-*"))

    def sweep(self) -> str:
        """Run ``pytest-kvm sweep`` as the session's user would, and return what it says."""
        command = [sys.executable, "-m", "pytest_kvm", "sweep"]
        environment = {name: value for name, value in self._environment.items() if name != _MARK}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout

    def said(self) -> str:
        """Return what it has printed."""
        return self._log.read_text(errors="backslashreplace")

    def close(self) -> None:
        """Kill what is there still."""
        for pid in self.processes():
            os.kill(pid, 9)
        self.process.kill()
        self.process.wait()


def processes(variable: str, name: str = "") -> list[int]:
    """Return the ids of the processes with a variable (``NAME=value``) that have not ended, of programs so named."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _belongs(entry, variable.encode(), name):
            found.append(int(entry.name))
    return found


def gone(variable: str, seconds: float, name: str = "") -> bool:
    """Wait until all of these processes have ended, so many seconds at most; return whether they have."""
    deadline = Deadline(seconds)
    while pids := processes(variable, name):
        with ExitStack() as stack:
            for pid in pids:
                if not _ended(pid, deadline, stack):
                    return False
    return True


def _belongs(process: Path, mark: bytes, name: str) -> bool:
    try:
        # A process that has ended, and is not reaped, has no environment.
        marked = mark in (process / "environ").read_bytes().split(b"\0")
        return marked and (process / "comm").read_text().startswith(name)
    except OSError:
        return False


def _ended(pid: int, deadline: Deadline, stack: ExitStack) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    stack.callback(os.close, descriptor)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll((deadline.remaining() or 0) * 1000))


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for a session's temporary files, with a name so short that sockets fit."""
    with tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp") as path:
        yield Path(path)
