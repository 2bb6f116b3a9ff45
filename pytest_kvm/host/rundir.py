"""A machine's private directory: sockets, logs, disks that nobody keeps."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pytest_kvm.errors import HostError


def make_run_dir() -> Path:
    """Make a fresh directory, mode 0700, with a path short enough for sockets.

    It stands in ``$XDG_RUNTIME_DIR`` never (a small tmpfs, and disks live here too) but in ``$TMPDIR``; where that is
    too deep for a socket's path, in /tmp. Raises HostError.
    """
    # The longest name in it, "control", and mkdtemp's own part.
    room = 107 - len("/pytest-kvm-12345678/control.sock")
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > room:
        base = "/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix="pytest-kvm-", dir=base))
    except OSError as error:
        raise HostError(
            f"cannot make a directory in {base}: {error.strerror}",
            hint="set TMPDIR to one that you may write",
        ) from error


def remove_run_dir(path: Path) -> None:
    """Remove the directory with all that is in it; raises OSError when something stays."""
    if path.exists():
        shutil.rmtree(path)
