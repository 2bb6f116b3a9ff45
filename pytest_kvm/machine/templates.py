"""The store of templates: booted machines, saved once for all sessions.

A template is a folder named by its key, put there by one rename when it is complete, and never changed. Who uses one
holds a shared lock on the folder itself; who deletes one needs the exclusive lock, and has moved the folder aside
before. Templates are made one at a time per key, under a lock beside the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from pytest_kvm.errors import MachineError, WaitTimeout
from pytest_kvm.images.progress import Report
from pytest_kvm.machine.state import Damaged, State
from pytest_kvm.waiting import Deadline

_ASIDE = "."  # names of folders that are no templates (yet, or any more) begin with it


class Impossible(MachineError):
    """There can be no template of this machine; the text says why."""


@dataclass(frozen=True)
class Entry:
    """A template in the store: ``used`` is when it last was, in seconds since 1970, ``size`` what it takes, in bytes.

    ``held`` says that a session uses it now.
    """

    key: str
    path: Path
    size: int
    used: float
    held: bool
    state: State | None


class Templates:
    """The templates in a directory, which is made when the first one is. Usable from any thread."""

    def __init__(self, directory: Path, *, report: Report | None = None) -> None:
        self.directory = directory
        self._report = report or (lambda _: None)

    def open(self, key: str) -> OpenTemplate | None:
        """Return a template to be used, None if there is none; a damaged one is no longer there then."""
        path = self.directory / key
        lock = _locked(path, fcntl.LOCK_SH)
        if lock is None:
            return None
        try:
            state = State.load(path)
        except Damaged as error:
            self._report(f"a template is made again: {error}")
            self._condemn(path, lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return OpenTemplate(key, state, lock)

    def condemn(self, template: OpenTemplate) -> None:
        """Close a template that is no good, and take it away; others who use it go on."""
        lock = template.release()
        if lock is not None:
            self._condemn(self.directory / template.key, lock)

    def _condemn(self, path: Path, lock: int) -> None:
        try:
            # Somebody may have made it again since it was opened.
            same = os.path.samestat(os.fstat(lock), path.stat())
            aside = self._move_aside(path) if same else None
        except FileNotFoundError:
            aside = None
        finally:
            os.close(lock)
        if aside is not None:
            _delete(aside)

    def _move_aside(self, path: Path) -> Path:
        aside = Path(tempfile.mkdtemp(prefix=f"{_ASIDE}old-", dir=self.directory))
        try:
            os.replace(path, aside)
        except BaseException:
            aside.rmdir()
            raise
        return aside

    @contextlib.contextmanager
    def making(self, key: str, deadline: Deadline) -> Iterator[None]:
        """Let nobody else make the template ``key`` inside the block; waits for somebody who does already.

        Raises WaitTimeout, Impossible when the directory cannot be written.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = filelock.FileLock(self.directory / f"{_ASIDE}{key}.lock", mode=0o600)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                self._report("waiting for another process that boots the same machine for a template")
                lock.acquire(timeout=-1 if deadline.remaining() is None else deadline.remaining())
        except filelock.Timeout:
            raise WaitTimeout(
                f"another process has been making the template {key} for {deadline.seconds or 0.0:g} s",
                timeout=deadline.seconds or 0.0,
            ) from None
        except OSError as error:
            raise Impossible(f"no template can be made in {self.directory}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """Yield an empty folder, which becomes the template ``key`` at the end of the block unless that raises."""
        lock = None
        while lock is None:  # one that was just made may look to somebody else like one that was left
            aside = Path(tempfile.mkdtemp(prefix=f"{_ASIDE}new-", dir=self.directory))
            lock = _locked(aside, fcntl.LOCK_SH)
        try:
            yield aside
            os.replace(aside, self.directory / key)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def remove(self, key: str) -> bool:
        """Remove a template unless somebody uses it; return whether it is gone."""
        path = self.directory / key
        lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return not path.exists()
        try:
            aside = self._move_aside(path)
        finally:
            os.close(lock)
        _delete(aside)
        return True

    def entries(self) -> list[Entry]:
        """Return what there is, the one used last first; damaged ones have no state."""
        found = []
        for path in self._folders(aside=False):
            lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:
                os.close(lock)
            try:
                used = path.stat().st_mtime
            except FileNotFoundError:
                continue
            try:
                state = State.load(path)
            except Damaged:
                state = None
            found.append(Entry(path.name, path, _size(path), used, lock is None, state))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def prune(self, limit: int) -> list[Entry]:
        """Remove damaged templates, and those used longest ago until the others take at most ``limit`` bytes.

        What killed processes left is removed, too; what is in use is not. Returns what was removed.
        """
        for path in self._folders(aside=True):
            _delete(path)
        removed = []
        entries = self.entries()
        room = limit
        for entry in entries:
            room -= entry.size
            if (entry.state is None or room < 0) and self.remove(entry.key):
                room += entry.size
                removed.append(entry)
        return removed

    def _folders(self, *, aside: bool) -> list[Path]:
        try:
            return [
                path for path in self.directory.iterdir() if path.is_dir() and path.name.startswith(_ASIDE) == aside
            ]
        except FileNotFoundError:
            return []


class OpenTemplate:
    """A template in use: nobody removes it until it is closed."""

    def __init__(self, key: str, state: State, lock: int) -> None:
        self.key = key
        self.state = state
        self._lock: int | None = lock

    def release(self) -> int | None:
        """Stop using it and return the descriptor that keeps it from being removed; None if that is closed."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self.state.close()
        return lock

    def close(self) -> None:
        """Stop using it; machines that are clones of it go on."""
        lock = self.release()
        if lock is not None:
            os.close(lock)


def _delete(aside: Path) -> None:
    """Delete a folder unless somebody uses it; prune() tries again."""
    lock = _locked(aside, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is not None:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def _locked(path: Path, how: int) -> int | None:
    """Return a descriptor of the folder that holds the lock; None if it is not there, or taken."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, how)
            # While we waited for it, another folder may have come to its name.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _size(path: Path) -> int:
    return sum(file.lstat().st_blocks * 512 for file in path.iterdir())
