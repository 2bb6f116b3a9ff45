"""How gdb attaches to a guest's kernel, through QEMU's gdbstub."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What "make scripts_gdb" leaves in a tree (the kernel's Documentation/dev-tools/gdb-kernel-debugging.rst).
_SCRIPTS = "vmlinux-gdb.py"


@dataclass(frozen=True)
class GDB:
    """Where gdb attaches to a machine: its ``socket``, and the kernel's ``vmlinux``, None if it is not known.

    ``str()`` of it is the command, to be typed.
    """

    socket: Path
    vmlinux: Path | None = None

    @property
    def command(self) -> Sequence[str]:
        """The command line of gdb; with the kernel's own scripts, where its tree has them, and symbols of modules."""
        target = ["-ex", f"target remote {self.socket}"]
        if self.vmlinux is None:
            return ["gdb", *target]
        if not (self.vmlinux.parent / _SCRIPTS).exists():
            return ["gdb", str(self.vmlinux), *target]
        trust = ["-iex", f"add-auto-load-safe-path {self.vmlinux.parent}"]
        return ["gdb", *trust, str(self.vmlinux), *target, "-ex", "lx-symbols"]

    def __str__(self) -> str:
        return shlex.join(self.command)
