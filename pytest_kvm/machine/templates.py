"""The store of templates: booted machines, saved once for all sessions.

A template is a folder with a name of its own, complete when a link called by its key leads to it, and never changed.
Whoever uses one holds a shared lock on the folder; who deletes one needs the exclusive lock. A template that is no
good, or was replaced, loses its link at once and its folder when nobody uses it any more: disks of clones are overlays
on files in it. Templates are made one at a time per key, under a lock beside the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from pytest_kvm.errors import MachineError
from pytest_kvm.host.sweep import Removed
from pytest_kvm.images.progress import Report, say_nothing
from pytest_kvm.machine.state import Damaged, State
from pytest_kvm.waiting import Deadline

_HIDDEN = "."  # names of what is no link to a template begin with it, but for the folders


class Impossible(MachineError):
    """There can be no template of this machine; the text says why."""


class Busy(MachineError):
    """Another process makes the template, and takes long."""


@dataclass(frozen=True)
class Entry:
    """A template in the store: ``used`` is when it last was, in seconds since 1970, ``size`` what it takes, in bytes.

    ``held`` says that a session uses it now. A damaged one has no state.
    """

    key: str
    size: int
    used: float
    held: bool
    state: State | None


class Templates:
    """The templates in a directory, which is made when the first one is. Usable from any thread."""

    def __init__(self, directory: Path, *, report: Report = say_nothing) -> None:
        self.directory = directory
        self._report = report

    def open(self, key: str) -> OpenTemplate | None:
        """Return a template to be used, None if there is none; a damaged one is no longer there then.

        Raises Impossible when the directory cannot be read.
        """
        try:
            found = self._locked(key, fcntl.LOCK_SH)
        except OSError as error:
            raise self._unusable(error) from error
        if found is None:
            return None
        folder, lock = found
        try:
            state = State.load(folder)
        except BaseException as error:
            os.close(lock)
            if not isinstance(error, Damaged):
                raise
            self._report(f"a template is made again: {error}")
            self._unlink(key, folder)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)  # used now
        return OpenTemplate(key, state, lock)

    def condemn(self, template: OpenTemplate) -> None:
        """Close a template that is no good, and let nobody else begin to use it; those who do go on."""
        template.close()
        self._unlink(template.key, template.state.path)

    def _unlink(self, key: str, folder: Path) -> None:
        link = self.directory / key
        with contextlib.suppress(OSError):
            if os.readlink(link) == folder.name:
                link.unlink()
        _delete(folder)

    @contextlib.contextmanager
    def making(self, key: str, deadline: Deadline) -> Iterator[None]:
        """Let nobody else make the template ``key`` inside the block; waits for somebody who does already.

        Raises Busy when the deadline comes first, Impossible when the directory cannot be written.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = filelock.FileLock(self.directory / f"{_HIDDEN}{key}.lock", mode=0o600)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                self._report("waiting for another process that boots the same machine for a template")
                lock.acquire(timeout=-1 if deadline.remaining() is None else deadline.remaining())
        except filelock.Timeout:
            raise Busy(f"another process has been making its template for {deadline.seconds or 0.0:g} s") from None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """Yield an empty folder, which is the template ``key`` from the end of the block on unless that raises."""
        folder, lock = self._new_folder(key)
        try:
            yield folder
            link = folder / f"{_HIDDEN}link"
            link.symlink_to(folder.name)
            os.replace(link, self.directory / key)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def _new_folder(self, key: str) -> tuple[Path, int]:
        while True:  # one that was just made may look to somebody else like one that was left
            folder = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.directory))
            lock = _lock(folder, fcntl.LOCK_SH)
            if lock is not None:
                return folder, lock

    def remove(self, key: str) -> bool:
        """Remove a template unless somebody uses it; return whether it is gone."""
        found = self._locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if found is None:
            return not (self.directory / key).exists()
        folder, lock = found
        try:
            (self.directory / key).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)  # what stays is pruned
        finally:
            os.close(lock)
        return True

    def entries(self) -> list[Entry]:
        """Return what there is, the one used last first."""
        found = []
        for link in self._names():
            if link.is_symlink():
                with contextlib.suppress(OSError):  # removed meanwhile, or another user's
                    found.append(self._entry(link))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def _entry(self, link: Path) -> Entry:
        folder = self._target(link)
        lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            os.close(lock)
        try:
            state = State.load(folder)
        except Damaged:
            state = None
        return Entry(link.name, _size(folder), folder.stat().st_mtime, lock is None, state)

    def prune(self, limit: int) -> list[Entry]:
        """Remove damaged templates, and those used longest ago until the others take at most ``limit`` bytes.

        What killed processes left, and what was replaced, is removed, too; what is in use is not. Returns the removed.
        """
        self.sweep()
        entries = self.entries()
        removed = []
        room = limit
        for entry in entries:
            room -= entry.size
            with contextlib.suppress(OSError):
                if (entry.state is None or room < 0) and self.remove(entry.key):
                    room += entry.size
                    removed.append(entry)
        return removed

    def sweep(self, *, dry_run: bool = False) -> list[Removed]:
        """Remove folders that killed processes left, and those that were replaced and are not in use any more.

        With ``dry_run`` they stay. Raises OSError.
        """
        linked = {os.readlink(link) for link in self._names() if link.is_symlink()}
        found = []
        for folder in self._names():
            if not folder.is_symlink() and folder.is_dir() and folder.name not in linked:
                with contextlib.suppress(OSError):  # somebody else removes it
                    size = _size(folder)
                    if _delete(folder, dry_run=dry_run):
                        found.append(Removed(folder, size))
        return found

    def _names(self) -> list[Path]:
        try:
            return [path for path in self.directory.iterdir() if not path.name.startswith(_HIDDEN)]
        except FileNotFoundError:
            return []

    def _locked(self, key: str, how: int) -> tuple[Path, int] | None:
        """Return the folder that the key leads to, and a descriptor of it that holds the lock.

        None if there is none, or its lock is taken.
        """
        link = self.directory / key
        try:
            while True:
                folder = self._target(link)
                lock = _lock(folder, how)
                if lock is None:
                    return None
                # While we waited for it, the link may have gone elsewhere.
                if link.is_symlink() and os.readlink(link) == folder.name:
                    return folder, lock
                os.close(lock)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _target(self, link: Path) -> Path:
        """Return the folder that a link leads to, which is here: no other is ours to remove. Raises OSError."""
        name = os.readlink(link)
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise FileNotFoundError(errno.ENOENT, "it leads out of the store", str(link))
        return self.directory / name

    def _unusable(self, error: OSError) -> Impossible:
        return Impossible(f"no template can be kept in {self.directory}: {error.strerror}")


class OpenTemplate:
    """A template in use: its folder stays until it is closed, and all duplicates are."""

    def __init__(self, key: str, state: State, lock: int) -> None:
        self.key = key
        self.state = state
        self._lock: int | None = lock

    def duplicate(self) -> OpenTemplate:
        """Return it once more, to be closed on its own."""
        if self._lock is None:
            raise ValueError(f"the template {self.key} is closed")
        return OpenTemplate(self.key, self.state, os.dup(self._lock))

    def close(self) -> None:
        """Stop using it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, how: int) -> int | None:
    """Return a descriptor of the folder that holds the lock; None if it is not there, or taken."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, how)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _size(folder: Path) -> int:
    """Return how many bytes a folder's files take; raises OSError."""
    return sum(file.lstat().st_blocks * 512 for file in folder.iterdir())


def _delete(folder: Path, *, dry_run: bool = False) -> bool:
    """Delete a folder unless somebody uses it, and return whether nobody does; sweep() tries again."""
    lock = None
    with contextlib.suppress(OSError):
        lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is None:
        return False
    if not dry_run:
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
    return True
