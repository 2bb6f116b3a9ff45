"""How do files get written as a whole or not at all, and copied without their holes?"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at ``path`` by one with ``data`` and ``mode``; its folder is made if it is missing.

    Readers see the old one or the new one. Raises OSError; then the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def unfinished(folder: Path, age: float) -> Iterator[Path]:
    """Yield what ``write_atomically`` left below a folder when it was killed, at least ``age`` seconds ago."""
    for path in folder.rglob(".*.????????"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if _TEMPORARY.fullmatch(path.name) and stat.S_ISREG(status.st_mode) and status.st_mtime < time.time() - age:
                yield path


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # of mkstemp
_CHUNK = 1 << 16
_ZEROS = bytes(_CHUNK)


def copy_sparse(source: int, target: int) -> None:
    """Copy a file's content into an empty one, by their descriptors; what is zero becomes a hole.

    Raises OSError.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # holes only, from here on
                return
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        while position < end:
            chunk = os.pread(source, min(_CHUNK, end - position), position)
            if not chunk:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            if chunk != _ZEROS[: len(chunk)]:
                _write(target, chunk, position)
            position += len(chunk)


def _write(target: int, data: bytes, position: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], position + written)


def why_unreadable(path: str | os.PathLike[str]) -> str | None:
    """Return in words why a file cannot be read, None if it can."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:  # a name that no file can have, for example
        return str(getattr(error, "strerror", None) or error)
    if stat.S_ISDIR(mode):
        return "it is a directory"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "it is a pipe or a socket, which cannot be read more than once"
    return None if os.access(path, os.R_OK) else "no permission to read it"


def why_no_folder(path: str | os.PathLike[str]) -> str | None:
    """Return in words why nobody can look into a folder, None if one can."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "there is no such folder"
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    if not stat.S_ISDIR(mode):
        return "it is no folder"
    return None if os.access(path, os.R_OK | os.X_OK) else "no permission to read it"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor that reads the file, closed at the end of the block; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
