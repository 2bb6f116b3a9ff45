"""Where a guest's kernel has what only developers look at: debugfs, its Documentation/filesystems/debugfs.rst."""

from __future__ import annotations

DEBUGFS = "/sys/kernel/debug"


def mounted(name: str) -> str:
    """Return the shell command that mounts it, if what is looked for in it is not there yet."""
    return f"test -d {DEBUGFS}/{name} || mount -t debugfs none {DEBUGFS} 2>/dev/null"
