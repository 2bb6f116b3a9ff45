"""What did sessions leave that were killed? Their run directories, and QEMUs that the kernel did not end; removed.

Nothing is touched without a proof that its owner is dead: the lock that he held for as long as he lived is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.mounts import filesystem
from pytest_kvm.host.orphans import end, inhabitants, is_ours
from pytest_kvm.host.rundir import OWNER, PREFIX, Owner, empty, run_base
from pytest_kvm.qemu.process import LOG

_log = logging.getLogger("pytest_kvm")
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")  # of mkdtemp
# Whose locks no other host holds. Elsewhere, another boot id may be another host's.
_LOCAL = frozenset(("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"))
_PATIENCE = 2.0  # seconds for a process that was killed to be gone
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC  # as NFS wants it for a lock


@dataclass(frozen=True)
class Removed:
    """A directory that was removed: ``size`` in bytes, ``ended`` are the processes that were killed for that."""

    path: Path
    size: int
    ended: Sequence[int] = ()


@dataclass(frozen=True)
class Left:
    """A directory of ours that was left, and why. ``used`` says that its owner lives, so that all is well."""

    path: Path
    reason: str
    used: bool = False


@dataclass
class Swept:
    """What became of what there was."""

    removed: list[Removed] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


def sweep(*, dry_run: bool = False) -> Swept:
    """Remove the run directories of dead owners, and end their QEMUs; with ``dry_run``, only tell which those are.

    Looks where this process would make its own (``$TMPDIR``). Other users' are passed over. Raises HostError when
    there is no such place.
    """
    base = Path(run_base())
    swept = Swept()
    try:
        names = sorted(entry.name for entry in os.scandir(base) if _NAME.fullmatch(entry.name))
    except OSError as error:
        raise HostError(f"cannot look into {base}: {error.strerror}", hint="set TMPDIR to another") from error
    for name in names:
        found = _swept(base / name, dry_run)
        if isinstance(found, Removed):
            swept.removed.append(found)
        elif found is not None:
            swept.left.append(found)
    return swept


def sweep_first(report: Callable[[str], None]) -> None:
    """Sweep before a session makes its first machine; ``report`` is told what was removed. Raises nothing."""
    try:
        swept = sweep()
    except HostError as error:
        _log.info("nothing is swept: %s", error)  # the machine that is about to be made will fail, and say why
        return
    for left in swept.left:
        if not left.used:
            _log.info("%s is left: %s", left.path, left.reason)
    if swept.removed:
        report(told(swept.removed, "removed"))


def told(removed: Sequence[Removed], verb: str) -> str:
    """Return a line about directories that were removed, and the processes that were ended for that."""
    size = sum(one.size for one in removed)
    number = len(removed)
    ended = sum(len(one.ended) for one in removed)
    processes = f", with {ended} QEMU process{'es' if ended > 1 else ''}" if ended else ""
    which = "directory that a killed session left" if number == 1 else "directories that killed sessions left"
    return f"{number} {which} {verb} ({size / 1024**2:.0f} MiB{processes})"


def _swept(path: Path, dry_run: bool) -> Removed | Left | None:
    """Return what became of a directory, None if it is not ours, or has gone meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(_opened(path))
        except OSError:  # a file, a link, another user's
            return None
        status = os.fstat(directory)
        if status.st_uid != os.geteuid():
            return None
        try:
            return _Candidate(path, directory, status, dry_run).judge()
        except FileNotFoundError:  # removed by its owner, or by somebody else who sweeps
            return None
        except OSError as error:
            return Left(path, f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))


class _Candidate:
    """A directory of this user's that may have been left."""

    def __init__(self, path: Path, directory: int, status: os.stat_result, dry_run: bool) -> None:
        self._path = path
        self._directory = directory
        self._status = status
        self._dry_run = dry_run

    def judge(self) -> Removed | Left | None:
        """Remove it unless something speaks against that; raises OSError."""
        if self._status.st_mode & 0o022:
            return self._left("others may write to it, and could have made what is in it")
        names = set(os.listdir(self._directory))
        if not names:  # killed in the moment of its creation; or that goes on: the creator makes another one then
            return self._removed()
        if OWNER not in names:
            return self._left("nothing in it says whose it is")
        with _opened(OWNER, self._directory, _WRITE) as lock:
            owner = Owner.read(os.pread(lock, 4096, 0))
            if not _try_lock(lock):
                who = f"process {owner.pid}" if owner is not None else "somebody"
                return self._left(f"in use by {who}", used=True)
            if not os.fstat(lock).st_nlink:  # somebody else sweeps, too
                return None
            # Written under the lock: whoever makes it may have begun meanwhile.
            owner = Owner.read(os.pread(lock, 4096, 0))
            return self._doubt(owner, names) or self._settle()

    def _doubt(self, owner: Owner | None, names: set[str]) -> Left | None:
        """Return why a lock that is free does not prove that the owner is dead, None if it does."""
        if owner is None:
            # Whoever made it was killed before he had the lock, or makes another one now.
            return None if names == {OWNER} else self._left("its owner was not able to lock it")
        if owner.boot != boot_id() and filesystem(self._directory) not in _LOCAL:
            return self._left(
                f"process {owner.pid} made it on another host, or before this one was booted; "
                "that its lock is free proves nothing on this file system"
            )
        return None

    def _settle(self) -> Removed | Left:
        """End the processes that are in it still, and remove it; the owner is dead."""
        ended: list[int] = []
        try:
            with _opened(LOG, self._directory, _WRITE) as log:
                said = os.fstat(log)
                for pid in inhabitants(self._status):
                    if not (is_ours(pid, self._status, said) if self._dry_run else self._end(pid, said)):
                        return self._left(
                            f"process {pid} works in it, and is not certainly a QEMU of ours that runs on"
                        )
                    ended.append(pid)
                if not (_try_lock(log) or (self._dry_run and ended)):
                    return self._left("something writes to its log that cannot be seen from here, as in a container")
        except FileNotFoundError:
            others = inhabitants(self._status)
            if others:
                return self._left(f"process {others[0]} works in it")
        return self._removed(ended)

    def _end(self, pid: int, log: os.stat_result) -> bool:
        return end(pid, self._status, log, patience=_PATIENCE)

    def _removed(self, ended: Sequence[int] = ()) -> Removed:
        size = _size(self._directory)
        if not self._dry_run:
            empty(self._directory)
            with contextlib.suppress(FileNotFoundError):
                self._path.rmdir()
        return Removed(self._path, size, tuple(ended))

    def _left(self, reason: str, *, used: bool = False) -> Left:
        return Left(self._path, reason, used)


@contextlib.contextmanager
def _opened(path: str | Path, directory: int | None = None, flags: int = _READ) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(directory: int) -> int:
    """Return how many bytes the files in a directory take, those that are there."""
    size = 0
    for _, _, names, folder in os.fwalk(".", dir_fd=directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
    return size
