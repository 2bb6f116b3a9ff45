"""How much memory is there, and how much of it is left?"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OUR_GROUPS = Path("/proc/self/cgroup")
# Above memory.high a group is slowed down to a crawl (the kernel's cgroup-v2.rst), which is no better than its end.
_LIMITS_V2 = ("memory.max", "memory.high")
_LIMITS_V1 = ("memory.limit_in_bytes",)


def available() -> int:
    """Return how many bytes can be had without swapping, as far as kernel and control group (v2) say."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    # Without a limit there is "max", which is no number; at the root there is no such file.
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return max(free, 0)


def total() -> int:
    """Return how many bytes there are, whoever has them now: the host's, or what control groups (v1, v2) let us have.

    A group has no more than those above it.
    """
    found = re.search(r"^MemTotal:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    sizes = [int(found[1]) * 1024 if found else sys.maxsize]
    for root, group, names in _memory_groups():
        # A container may see its own group as the root of all, whatever it is called outside.
        for folder in (root / group, *(root / group).parents):
            if folder.is_relative_to(root):
                for name in names:
                    with contextlib.suppress(OSError, ValueError):  # "max" is no number, and a root has no such file
                        sizes.append(int((folder / name).read_text()))
    return min(sizes)


def _memory_groups() -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Yield the root of each hierarchy that may limit memory, our group below it, and the names of its limits."""
    try:
        lines = _OUR_GROUPS.read_text().splitlines()
    except OSError:  # a kernel without control groups
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield _CGROUP, group.lstrip("/"), _LIMITS_V2
        elif "memory" in controllers.split(","):
            yield _CGROUP / "memory", group.lstrip("/"), _LIMITS_V1
