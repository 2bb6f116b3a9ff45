"""Unpacking an archive that a guest has made: nothing in it gets out of the directory that it is for.

Not tarfile's own filter="data": Python 3.11.2 (Debian 12) does not have it, and it takes permissions away.
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, cast

T = TypeVar("T")

_PIECE = 1 << 16
_LARGEST = (1 << 63) - 1
# Directories in directories: Python's own functions, which have to remove them again, are recursive.
_DEEPEST = 200
# Bytes of all that is said about one member before its content: names, and where the content of a sparse file is.
_HEADER_LIMIT = 1 << 20
# The same for all members: some 300,000. Their names are kept until the end.
_HEADERS_LIMIT = 256 << 20
# What an archive is to blame for, not the file system that it is unpacked on.
_ODD_NAMES = {
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL),
    *(errno.ELOOP, errno.EMLINK, errno.EFBIG),
}


class Refused(Exception):
    """Something in the archive is not to be here; the text says what, and why."""


class _Source:
    """What tarfile reads from. With ``header`` it is what is said about a member, which has to come to an end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._taken = 0
        self._ended = False
        self.header = True

    def member(self) -> None:
        """Another member begins."""
        self.header = True
        self._taken = 0

    def read(self, size: int) -> bytes:
        if self._ended:
            # tarfile skips what a member says is its content, by pieces, whether or not anything comes.
            raise tarfile.ReadError("unexpected end of data")
        pieces = []
        left = size
        while left and (piece := self._read(left)):
            pieces.append(piece)
            left -= len(piece)
        self._ended = left > 0
        self._taken += size - left if self.header else 0
        if self._taken > _HEADER_LIMIT:
            raise Refused(f"it says more than {_HEADER_LIMIT >> 20} MiB about a single file")
        return b"".join(pieces)


class _Member(tarfile.TarInfo):
    """A member that is what it seems; tarfile takes a damaged header for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        """Return the next member; raises tarfile.ReadError for what is none, and EOFHeaderError at the end."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in the stubs
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    def _block(self, count: int) -> int:
        # What is passed over must not lead back: Python before 3.11.14 would do so for ever (CVE-2025-8194).
        if count < 0:
            raise tarfile.ReadError("a negative size")
        return int(super()._block(count))  # type: ignore[misc]  # not in the stubs


def unpack(read: Callable[[int], bytes], folder: Path) -> dict[str, int]:
    """Unpack a tar archive into a fresh directory; return the permissions that its directories are to get.

    ``read`` returns at most so many bytes, and none at the end. Directories stay open to us until everything is where
    it belongs. Links are made last, so that nothing is ever written through one. Raises Refused, tarfile.TarError for
    what is no complete archive, and OSError.
    """
    source = _Source(read)
    folders: dict[str, int] = {}
    links: dict[str, str] = {}
    said = 0
    with _opened(source) as tar:
        while (member := _next(tar, source)) is not None:
            said += member.offset_data - member.offset
            if said > _HEADERS_LIMIT:
                raise Refused(f"it says more than {_HEADERS_LIMIT >> 20} MiB about its files")
            try:
                _unpack(tar, member, folder, folders, links)
            except OSError as error:
                if error.errno not in _ODD_NAMES:
                    raise
                raise Refused(f"{member.name[:300]!r} cannot be here: {error.strerror}") from error
    _link(folder, links)
    return folders


def _opened(source: _Source) -> tarfile.TarFile:
    def open_() -> tarfile.TarFile:
        return tarfile.open(
            fileobj=cast("IO[bytes]", source), mode="r|", bufsize=_PIECE, errors="surrogateescape", tarinfo=_Member
        )

    return _parsed(open_)


def _next(tar: tarfile.TarFile, source: _Source) -> tarfile.TarInfo | None:
    source.member()
    member = _parsed(tar.next)
    source.header = False
    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
    return member


def _parsed(parse: Callable[[], T]) -> T:
    """Do what reads headers; what tarfile raises for hostile ones is not always what it says."""
    try:
        return parse()
    except (tarfile.TarError, EOFError, Refused):
        raise
    except Exception as error:  # noqa: BLE001  # ValueError, IndexError, RecursionError and others have been seen
        raise tarfile.ReadError(f"a damaged header ({type(error).__name__}: {error})") from None


def _unpack(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, folders: dict[str, int], links: dict[str, str]
) -> None:
    name = _inside(member.name, member.name)
    path = folder / name
    if name in links or (os.path.lexists(path) and not (member.isdir() and path.is_dir())):
        raise Refused(f"{member.name!r} is there twice")
    if name.count("/") > _DEEPEST:
        raise Refused(f"{member.name[:200]!r}… is more than {_DEEPEST} directories deep")
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
        folders[name] = member.mode & 0o777
    elif member.issym():
        links[name] = _named(member.linkname, member.name)
    elif member.islnk() and _inside(member.linkname, member.name) in links:
        links[name] = links[_inside(member.linkname, member.name)]
    else:
        _write(tar, member, folder, path)


def _link(folder: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        if os.path.lexists(folder / name):
            raise Refused(f"{name!r} is a link, and a directory")
        try:
            os.symlink(target, folder / name)
        except OSError as error:
            if error.errno not in _ODD_NAMES:
                raise
            raise Refused(f"{name!r} cannot be a link to {target[:200]!r}: {error.strerror}") from error
    root = os.path.realpath(folder)
    for name, target in links.items():
        # Not by its text alone: a link may lead through another one.
        if target.startswith("/") or not f"{os.path.realpath(folder / name)}/".startswith(f"{root}/"):
            raise Refused(f"{name!r} is a link to {target!r}, which leads out of it")


def _inside(name: str, of: str) -> str:
    """Return a member's name as a path that is sure to be relative; raises Refused."""
    path = posixpath.normpath(_named(name, of))
    if name.startswith("/") or path == ".." or path.startswith("../"):
        raise Refused(f"{of!r} leads out of it")
    return path


def _named(name: str, of: str) -> str:
    if "\0" in name:
        raise Refused(f"{of!r} has a name, or leads to one, that no file can have")
    return name


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> None:
    """Make a file, or one more name for a file."""
    if member.islnk():
        other = folder / _inside(member.linkname, member.name)
        if not other.is_file():
            raise Refused(f"{member.name!r} is another name of {member.linkname!r}, which is not there")
        os.link(other, path)
        return
    if not 0 <= member.size <= _LARGEST:
        raise Refused(f"{member.name!r} cannot have {member.size} bytes")
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise Refused(f"{member.name!r} is a device, or a pipe")
    with source, path.open("xb") as file:
        if member.issparse():
            _write_sparse(cast("IO[bytes]", tar.fileobj), member, file)
        else:
            shutil.copyfileobj(source, file, _PIECE)
    path.chmod(permissions(member.mode))


def _write_sparse(stream: IO[bytes], member: tarfile.TarInfo, file: IO[bytes]) -> None:
    """Write a file that has holes, as a file that has holes: who says that one is endless does not make it so."""
    stream.seek(member.offset_data)
    for position, size in cast("list[tuple[int, int]]", member.sparse):
        if position < 0 or size < 0 or position + size > member.size:
            raise Refused(f"{member.name!r} has content where it has none")
        file.seek(position)
        left = size
        while left:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            file.write(piece)
            left -= len(piece)
    file.truncate(member.size)


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
