"""A private directory, of a machine or a seed, that is locked for as long as its owner lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from pytest_kvm.errors import HostError
from pytest_kvm.host.kernel import boot_id

PREFIX = "pytest-kvm-"
# Whose the directory is: the owner holds a lock (flock(2)) on this file, which the kernel lets go of at his death. No
# device has such a name: QEMU's ids begin with a letter.
OWNER = ".owner"
# Where files cannot be locked, nobody can prove that an owner is dead: the file stays empty.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Owner:
    """Who made a directory: process ``pid`` while the host had the boot id ``boot``, at ``made`` (since 1970)."""

    pid: int
    boot: str
    made: float

    def written(self) -> bytes:
        """Return what ``read`` reads."""
        return f"{json.dumps(asdict(self))}\n".encode()

    @classmethod
    def read(cls, text: bytes) -> Owner | None:
        """Return the owner that a file names, None if it names none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


class RunDir:
    """A directory that is ours as long as this process lives and has not removed it; ``path`` is where.

    It is a context manager, too, which gives the path.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it with all that is in it, harmless when it is gone; raises OSError when something stays."""
        try:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    empty(descriptor)
                finally:
                    os.close(descriptor)
                self.path.rmdir()
        finally:  # what stays is nobody's from now on
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)


class LaterRunDir:
    """A directory that is made when it is first used; not from two threads at once."""

    def __init__(self) -> None:
        self._made: RunDir | None = None

    @property
    def path(self) -> Path:
        """Where it is; raises HostError when it cannot be made."""
        if self._made is None:
            self._made = make_run_dir()
        return self._made.path

    def remove(self) -> None:
        """Remove it, if it was made; raises OSError when something stays."""
        made, self._made = self._made, None
        if made is not None:
            made.remove()


def run_base() -> str:
    """Return the directory in which run directories are made; raises HostError when there is none.

    That is never ``$XDG_RUNTIME_DIR`` (a small tmpfs, and disks live in them, too) but ``$TMPDIR``; where that is too
    deep for a socket's path, /tmp.
    """
    # The longest name in it, "control", and mkdtemp's own part.
    room = 107 - len("/pytest-kvm-12345678/control.sock")
    try:
        base = tempfile.gettempdir()
    except OSError as error:
        raise HostError(f"{error.strerror}", hint="set TMPDIR to a directory that you may write") from error
    return base if len(os.fsencode(base)) <= room else "/tmp"


def make_run_dir() -> RunDir:
    """Make a fresh directory, mode 0700, with a path short enough for sockets, in ``run_base()``. Raises HostError."""
    base = run_base()
    try:
        while True:
            made = _owned(Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)))
            if made is not None:
                return made
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise HostError(
            f"cannot make a directory in {base}: {error.strerror}",
            hint=f"set TMPDIR to one {'with more room' if full else 'that you may write'}",
        ) from error


def _owned(path: Path) -> RunDir | None:
    """Take possession of a directory that was just made; None if somebody who sweeps took it for one that was left."""
    try:
        lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            os.write(lock, Owner(os.getpid(), boot_id(), time.time()).written())
            return RunDir(path, lock)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return RunDir(path, lock)
        if not isinstance(error, BlockingIOError):
            os.close(lock)
            shutil.rmtree(path, ignore_errors=True)
            raise
    os.close(lock)
    return None


def empty(descriptor: int) -> None:
    """Remove all that is in a directory, the file that names its owner last; raises OSError when something stays.

    Links are not followed, whatever somebody puts in a name's place meanwhile.
    """
    with os.scandir(descriptor) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.name, dir_fd=descriptor)
        elif entry.name != OWNER:
            os.unlink(entry.name, dir_fd=descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(OWNER, dir_fd=descriptor)
