"""Unpacking an archive that a guest has made: nothing in it gets out of the directory that it is for.

Not tarfile's own filter="data": Python 3.11.2 (Debian 12) does not have it, and it takes permissions away.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

_PIECE = 1 << 16


class Refused(Exception):
    """Something in the archive is not to be here; the text says what, and why."""


class _Stream:
    """What tarfile reads from."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def read(self, size: int) -> bytes:
        pieces = []
        while size and (piece := self._read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def unpack(read: Callable[[int], bytes], folder: Path) -> dict[str, int]:
    """Unpack a tar archive into a fresh directory; return the permissions that its directories are to get.

    ``read`` returns at most so many bytes, and none at the end. Directories stay open to us until everything is where
    it belongs. Links are made last, so that nothing is ever written through one. Raises Refused, tarfile.TarError for
    what is no complete archive, and OSError.
    """
    folders: dict[str, int] = {}
    links: dict[str, str] = {}
    with tarfile.open(
        fileobj=cast("IO[bytes]", _Stream(read)), mode="r|", bufsize=_PIECE, errors="surrogateescape"
    ) as tar:
        for member in tar:
            name = _inside(member.name, member.name)
            path = folder / name
            if name in links or (os.path.lexists(path) and not (member.isdir() and path.is_dir())):
                raise Refused(f"{member.name!r} is there twice")
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(exist_ok=True)
                folders[name] = stat.S_IMODE(member.mode) & 0o777
            elif member.issym():
                links[name] = member.linkname
            elif member.islnk() and _inside(member.linkname, member.name) in links:
                links[name] = links[_inside(member.linkname, member.name)]
            else:
                _write(tar, member, folder, path)
    _link(folder, links)
    return folders


def _link(folder: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        if os.path.lexists(folder / name):
            raise Refused(f"{name!r} is a link, and a directory")
        os.symlink(target, folder / name)
    root = os.path.realpath(folder)
    for name, target in links.items():
        # Not by its text alone: a link may lead through another one.
        if target.startswith("/") or not f"{os.path.realpath(folder / name)}/".startswith(f"{root}/"):
            raise Refused(f"{name!r} is a link to {target!r}, which leads out of it")


def _inside(name: str, of: str) -> str:
    """Return a member's name as a path that is sure to be relative; raises Refused."""
    path = posixpath.normpath(name)
    if name.startswith("/") or path == ".." or path.startswith("../"):
        raise Refused(f"{of!r} leads out of it")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> None:
    """Make a file, or one more name for a file."""
    if member.islnk():
        other = folder / _inside(member.linkname, member.name)
        if not other.is_file():
            raise Refused(f"{member.name!r} is another name of {member.linkname!r}, which is not there")
        os.link(other, path)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise Refused(f"{member.name!r} is a device, or a pipe")
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, _PIECE)
    path.chmod(permissions(member.mode))


def permissions(mode: int) -> int:
    """Return what a file gets here that has ``mode`` there: its owner can read it, and running it changes no user."""
    return mode & 0o777 | 0o400


def move_in(source: Path, target: Path) -> None:
    """Give a tree its final name; if there is a directory of that name, move into it what is in the tree.

    Raises OSError, and never follows a link in ``target``.
    """
    if not os.path.lexists(target):
        source.rename(target)
        return
    if target.is_symlink() or not target.is_dir():
        raise NotADirectoryError(f"{str(target)!r} is in the way of a directory")
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink():
            move_in(entry, place)
        elif place.is_dir() and not place.is_symlink():
            raise IsADirectoryError(f"{str(place)!r} is a directory, in the way of a file")
        else:
            entry.replace(place)
