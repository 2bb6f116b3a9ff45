"""How much memory is left?"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Return how many bytes can be had without swapping, as far as kernel and control group (v2) say."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    # Without a limit there is "max", which is no number; at the root there is no such file.
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return max(free, 0)
