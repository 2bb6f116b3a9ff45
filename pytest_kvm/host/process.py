"""Is a process still the one that it was, and what does it do?"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

# In what follows the name in /proc/PID/stat (proc(5)): the state, and the start in clock ticks after the host's.
_STATE, _STARTED = 0, 19
# The time that it has run, in user space and in the kernel, in ticks.
_RUN = slice(11, 13)
_ENDED = (b"Z", b"X")


@dataclass(frozen=True)
class Process:
    """A process of this host: ids are used again, but not with the same start."""

    pid: int
    started: int

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        fields = _status(str(os.getpid()))
        if fields is None:
            raise OSError("/proc does not show this process")
        return cls(os.getpid(), int(fields[_STARTED]))

    @property
    def name(self) -> str:
        """Both numbers, as the beginning of file names."""
        return f"{self.pid}.{self.started}"

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        fields = _status(str(self.pid))
        return fields is not None and int(fields[_STARTED]) == self.started and fields[_STATE] not in _ENDED

    def watched(self) -> int | None:
        """Return a descriptor that becomes readable when it ends, None when it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:  # then the descriptor is of this one
            return descriptor
        os.close(descriptor)
        return None


def busy_time(pid: int, thread: int) -> float:
    """Return for how many seconds a thread of a process has run, or waited for a processor; 0.0 when it has ended.

    Of kernels that do not count the second, only the first.
    """
    with contextlib.suppress(OSError, ValueError):
        # Documentation/scheduler/sched-stats.rst: both in nanoseconds, and how often it ran.
        ran, waited, _ = map(int, Path(f"/proc/{pid}/task/{thread}/schedstat").read_bytes().split())
        if ran:
            return (ran + waited) / 1e9
    fields = _status(f"{pid}/task/{thread}")
    return 0.0 if fields is None else sum(map(int, fields[_RUN])) / os.sysconf("SC_CLK_TCK")


def _status(process: str) -> list[bytes] | None:
    """Return the fields behind the name, None when it has ended."""
    try:
        descriptor = os.open(f"/proc/{process}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 4096)  # one page at most, and all of it at once
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return text.rpartition(b")")[2].split()
