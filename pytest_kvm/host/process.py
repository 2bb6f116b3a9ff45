"""Is a process still the one that it was?"""

from __future__ import annotations

import os
from dataclasses import dataclass

# In what follows the name in /proc/PID/stat (proc(5)): the state, and the start in clock ticks after the host's.
_STATE, _STARTED = 0, 19
_ENDED = (b"Z", b"X")


@dataclass(frozen=True)
class Process:
    """A process of this host: ids are used again, but not with the same start."""

    pid: int
    started: int

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        fields = _status(os.getpid())
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
        fields = _status(self.pid)
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


def _status(pid: int) -> list[bytes] | None:
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 4096)  # one page at most, and all of it at once
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return text.rpartition(b")")[2].split()
