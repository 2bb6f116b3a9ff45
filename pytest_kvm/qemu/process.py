"""QEMU's process: started so that it dies with us, watched without polling, ended for sure."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline, Watch

# setpriv arms the kernel, and a shell then sees whether the parent was still there: were it killed in the millisecond
# before that, nobody would end QEMU.
_STILL_THERE = '[ "$PPID" = "$0" ] || exit 125; exec "$@"'
# The same, for hosts without it. 1 is PR_SET_PDEATHSIG.
_LAUNCHER = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "if os.getppid() != int(sys.argv[1]): os._exit(125)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
# The kernel that QEMU reads at each start goes into huge pages then: a quarter of the time until QMP answers. Other C
# libraries, and those before 2.35, pass it over (glibc's manual, "Memory Allocation Tunables").
_TUNABLES = "glibc.malloc.hugetlb=1"
# With wait=on QEMU announces each socket that we have connected to long before.
_NOISE = "info: QEMU waiting for connection on:"
STDERR_LIMIT = 64 * 1024
# The file in a machine's directory for what QEMU says.
LOG = "qemu.log"


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """Return ``command`` wrapped so that the kernel kills it when the thread that starts it ends."""
    setpriv = shutil.which("setpriv")
    if setpriv and Path(setpriv).resolve().name == "setpriv":  # busybox's does not know that option
        return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _STILL_THERE, str(os.getpid()), *command]
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


class QEMUProcess:
    """One run of QEMU. ``returncode`` is None while it runs, negative for a signal, as in subprocess."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        io: IOThread,
        watch: Watch,
        stderr_path: Path,
        pass_fds: Sequence[int] = (),
        cwd: Path,
        on_exit: Callable[[QEMUProcess], None],
        before_exit: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.command = list(command)
        self.returncode: int | None = None
        self._said: str | None = None
        self._io = io
        self._watch = watch
        self._stderr_path = stderr_path
        self._before_exit = before_exit
        self._on_exit = on_exit
        self._reaping: asyncio.Task[None] | None = None
        self._process = io.call(self._start, list(pass_fds), cwd)

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def _start(self, pass_fds: list[int], cwd: Path) -> subprocess.Popen[bytes]:
        with self._stderr_path.open("ab") as stderr:
            # Held by all that run in our name, in whatever container, until the last of them has ended: others see
            # that there are some (host/sweep.py).
            with contextlib.suppress(OSError):
                fcntl.flock(stderr, fcntl.LOCK_SH | fcntl.LOCK_NB)
            process = subprocess.Popen(
                dying_with_parent(self.command),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=pass_fds,
                cwd=cwd,
                env={"GLIBC_TUNABLES": _TUNABLES, **os.environ},
                # Ctrl-C is for pytest, which then ends QEMU itself.
                start_new_session=True,
            )
        self._io.adopt(process.pid)
        self._pidfd = os.pidfd_open(process.pid)
        self._io.loop.add_reader(self._pidfd, self._reap, process)
        return process

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        self._io.loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A wrapper given as QEMU may have started others. Until it is reaped, its group's number is nobody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._io.release(process.pid)
        self._reaping = asyncio.get_running_loop().create_task(self._tell(process.wait()))

    async def _tell(self, returncode: int) -> None:
        if self._before_exit is not None:
            await self._before_exit()
        with self._watch:
            self._said = self.stderr()  # its file goes with the machine, what it said may be asked for later
            self.returncode = returncode
            self._on_exit(self)
            self._watch.notify()

    @property
    def running(self) -> bool:
        """Whether QEMU has not ended yet."""
        return self.returncode is None

    def stderr(self) -> str:
        """Return the end of what QEMU wrote to stdout and stderr, 64 KiB at most."""
        if self._said is not None:
            return self._said
        with self._stderr_path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - STDERR_LIMIT))
            text = file.read().decode(errors="backslashreplace")
        return "".join(line for line in text.splitlines(keepends=True) if _NOISE not in line)

    def signal(self, number: signal.Signals) -> None:
        """Send QEMU a signal; nothing happens when it has ended."""
        with self._watch:
            # Reaped only in _reap, under the same lock: the id cannot be another process's.
            if self.returncode is None:
                self._process.send_signal(number)

    def wait(self, deadline: Deadline) -> bool:
        """Wait for QEMU's end, whatever else has failed; return False when the deadline came first."""
        with self._watch:
            return self._watch.wait_only(lambda: self.returncode is not None, deadline)

    def end(self, patience: float) -> bool:
        """End QEMU: SIGTERM, and SIGKILL after ``patience`` seconds; return whether it is gone."""
        self.signal(signal.SIGTERM)
        if not self.wait(Deadline(patience)):
            self.signal(signal.SIGKILL)
            return self.wait(Deadline(10))
        return True


def describe_end(returncode: int | None) -> str:
    """Say how a process ended: ``exited with status 1``, ``was killed by SIGKILL``."""
    if returncode is None:
        return "is still running"
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"exited with status {returncode}"
