"""What was found out about files, kept between sessions: a file is looked into again when it is another one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kvm.files import write_atomically

# A file that was changed this recently may change again without a new time: nothing about it is remembered (seconds).
_SETTLED = 2.0


class Remembered:
    """Facts about files, in a ``directory``, each as JSON can hold it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def about(self, path: Path, what: str, find: Callable[[Path], Any]) -> Any:
        """Return what ``find`` returns for a file, or did when the same file was looked at before.

        Raises OSError when the file cannot be read, and what ``find`` raises.
        """
        place = self._directory / f"file-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]}.json"
        known: dict[str, Any] = {}
        identity = file_identity(path)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            remembered = json.loads(place.read_text())
            if remembered["identity"] == identity:
                known = remembered
        if what in known:
            return known[what]
        begun = time.time()
        found = find(path)
        settled = begun - max(path.stat().st_mtime, path.stat().st_ctime) > _SETTLED
        if settled and file_identity(path) == identity:
            with contextlib.suppress(OSError):  # then it is looked at again next time
                write_atomically(place, json.dumps({**known, "identity": identity, what: found}).encode())
        return found


def file_identity(path: Path) -> str:
    """Return what changes when another file takes a file's place, or it is written to. Raises OSError."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
