"""Where programs are that nobody types."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

# Where distributions keep them.
HELPERS = ("/usr/libexec", "/usr/lib/qemu", "/usr/lib")


def find(name: str, folders: Iterable[str] | None = None) -> Path | None:
    """Return where a program is: on PATH, or in one of the folders (default: those of helpers)."""
    for path in (None, *(HELPERS if folders is None else folders)):
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found)
    return None
