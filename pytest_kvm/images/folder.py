"""A disk image made of a folder of the host."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.host.helpers import find

_BLOCK = 4096
_INODE = 256
# What a file system has beside files: groups, bitmaps, and room that its allocator does not use to the last block.
_SLACK = 1.05
_LEAST = 4 << 20
# A file of each kind takes an inode; some are the file system's own.
_OWN_INODES = 64
# mke2fs is not on everybody's PATH.
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def make_image(folder: Path, into: Path) -> None:
    """Write an ext4 file system with all that is in a folder into a new sparse file.

    Owners, modes, times, links and extended attributes are those of the host. Raises HostError; then there is no file.
    """
    program = find("mke2fs", _FOLDERS)
    if program is None:
        raise HostError("mke2fs is not installed", hint="install the package e2fsprogs")
    try:
        size, inodes = _needs(folder)
        with into.open("xb") as file:
            os.truncate(file.fileno(), size)
        # No journal: nobody writes. Everything else as mke2fs has it, whatever /etc/mke2fs.conf says.
        done = subprocess.run(
            [
                *(program, "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-I", str(_INODE), "-N", str(inodes)),
                *("-m", "0", "-O", "^has_journal,^resize_inode", "-d", folder, into),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
    except OSError as error:
        into.unlink(missing_ok=True)
        raise HostError(f"no image can be made of {folder}: {error.strerror} ({error.filename or into})") from error
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    if done.returncode:
        into.unlink(missing_ok=True)
        full = os.strerror(errno.ENOSPC) in done.stderr
        raise HostError(
            f"no image can be made of {folder}: {_last(done.stderr)}",
            hint="set TMPDIR to a directory with more room" if full else "",
        )


def identity(folder: Path) -> str:
    """Return what changes when something in a folder does, as far as names, sizes and times tell. Raises OSError."""
    lines = [f"{os.path.abspath(folder)}"]
    lines += [
        f"{path}\0{status.st_ino}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
        for path, status in _walk(folder)
    ]
    return "\n".join(lines)


def _needs(folder: Path) -> tuple[int, int]:
    """Return how large the file system has to be, in bytes, and how many inodes it needs."""
    size, inodes = 0, _OWN_INODES
    for _, status in _walk(folder):
        inodes += 1
        size += -(-status.st_size // _BLOCK) * _BLOCK + _BLOCK  # a block for what describes it: extents, attributes
    return int((size + inodes * _INODE) * _SLACK) + _LEAST, inodes


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all that is in a folder, and itself, in an order that does not change; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for base, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        yield base, os.lstat(base)
        for name in sorted([*names, *(each for each in folders if os.path.islink(os.path.join(base, each)))]):
            path = os.path.join(base, name)
            yield path, os.lstat(path)


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "mke2fs says nothing"
