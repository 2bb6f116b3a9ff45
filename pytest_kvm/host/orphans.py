"""Which processes work in a directory whose owner is dead, which of them are certainly QEMUs of ours, and end those."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.qemu.cmdline import is_built

_PROC = Path("/proc")


def inhabitants(directory: os.stat_result) -> list[int]:
    """Return the ids of the processes whose working directory it is, as far as they can be seen from here."""
    return [int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit() and _works_in(entry, directory)]


def _works_in(entry: os.DirEntry[str], directory: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(f"{entry.path}/cwd"), directory)
    except OSError:  # it has ended, or is another user's
        return False


def is_ours(pid: int, directory: os.stat_result, log: os.stat_result) -> bool:
    """Return whether a process is certainly a QEMU that was started in a directory, or what was started around it.

    It runs as us and nobody else, works in the directory, has our command line, and says what it says to the ``log``
    there.
    """
    process = _PROC / str(pid)
    try:
        uids = re.search(r"^Uid:\s*(.*)$", (process / "status").read_text(), re.MULTILINE)
        command = (process / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        return (
            uids is not None
            and set(uids[1].split()) == {str(os.geteuid())}
            and os.path.samestat((process / "cwd").stat(), directory)
            and any(os.path.samestat(status, log) for status in _said_to(process))
            and is_built(command)
        )
    except OSError:
        return False


def _said_to(process: Path) -> Iterator[os.stat_result]:
    for descriptor in ("1", "2"):
        with contextlib.suppress(FileNotFoundError):  # closed
            yield (process / "fd" / descriptor).stat()


def end(pid: int, directory: os.stat_result, log: os.stat_result, *, patience: float) -> bool:
    """Kill a process if it is certainly ours; return whether it has ended, within ``patience`` seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Asked again: from here on, the descriptor cannot become another process's, as the number could until now.
        if not is_ours(pid, directory, log):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(patience * 1000))
    finally:
        os.close(process)
