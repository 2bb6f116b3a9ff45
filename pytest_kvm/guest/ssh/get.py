"""Copying out of the guest."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.guest.result import decoded
from pytest_kvm.guest.ssh.transfer import PIECE, Copying, Way, guest_path, script
from pytest_kvm.guest.ssh.unpack import Refused, move_in, permissions, unpack

if TYPE_CHECKING:
    from pytest_kvm.guest.ssh.session import Read

# $k is a word that nobody else says: what comes before it is what the user's profile prints. There is nothing to tell
# whether tar has got what there is in /proc and /sys, whose files have no size, or a wrong one.
_SCRIPT = """\
if [ -d "$t" ]; then
cd "$t" || exit 1
case $(pwd -P)/ in /proc/*|/sys/*) f "the files of $t can only be copied one by one";; esac
echo "$k d"
exec tar cf - .
fi
[ -e "$t" ] || f "there is no $t"
[ -c "$t" ] && f "$t is a device, and may never end"
exec 3<"$t" || exit 1
ls -lndL "$t" | { read -r m n u g z r; echo "$k $m $z"; }
exec cat <&3
"""
_LONGEST_GREETING = 1 << 20
_HEADER = re.compile(rb" (\S*)(?: (\S*))?\n")
_SIZE = re.compile(rb"[0-9]{1,19}")
# What GNU tar says, and returns 1, when a file of a living system is written to just then: what it read is there.
_CHANGED = re.compile(r"file (?:changed as we read it|removed before we read it)$", re.IGNORECASE)


def get(way: Way, remote: str, local: str | os.PathLike[str], *, mode: int | None, timeout: float | None) -> Path:
    """Copy a file or a directory; see SSH.get."""
    told = os.fspath(local)
    copying = Copying(way, "get", f"{remote!r} to {told!r}", remote, timeout)
    source = guest_path(remote)
    target = Path(told)
    if target.is_dir():
        name = posixpath.basename(remote.rstrip("/"))
        if name in ("", ".", "..", "~"):
            raise ValueError(f"{remote!r} does not say what it is to be called in {told!r}; give its full name there")
        target /= name
    elif told.endswith("/") or not target.parent.is_dir():
        missing = told if told.endswith("/") else str(target.parent)
        raise FileNotFoundError(errno.ENOENT, "there is no such directory", missing)
    # In the target's own directory, or in the target, from where it can be renamed to its place.
    stage = Path(tempfile.mkdtemp(prefix=".pytest-kvm.", dir=target if target.is_dir() else target.parent))
    try:
        _Getting(copying, target, stage, mode).run(source)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


class _Getting:
    """One transfer out of the guest: into ``stage``, and then to ``target``."""

    def __init__(self, copying: Copying, target: Path, stage: Path, mode: int | None) -> None:
        self._copying = copying
        self._target = target
        self._copy = stage / "copy"
        self._mode = mode
        self._mark = secrets.token_hex(8)
        # What the guest tells first.
        self._kind = b""
        self._size: int | None = None
        self._folders: dict[str, int] = {}
        self._broken: Exception | None = None

    def run(self, source: str) -> None:
        """Do it all; the copy has its final name when that returns."""
        try:
            session = self._copying.carry_out(script(_SCRIPT, t=source, k=self._mark), consume=self._consume)
        except Refused as error:
            raise self._copying.error(f"{error}, and is not copied; get what you need of it by name") from error
        if not (session.status == 1 and _only_changes(decoded(bytes(session.err)))):
            self._copying.check(session)
        if not self._kind:
            raise self._copying.error("the guest does not say what it is: its shell does not do what it is told")
        if self._broken is not None:
            raise self._copying.error(f"the guest's archive is not complete: {self._broken}") from self._broken
        if self._kind == b"d":
            move_in(self._copy, self._target)
            for name, permitted in sorted(self._folders.items(), reverse=True):
                (self._target / name).chmod(permitted | 0o700)  # or nobody could look at it, or remove it
            return
        self._check_size(source)
        self._copy.replace(self._target)

    def _consume(self, read: Read) -> None:
        """Take what the guest sends. In a thread."""
        rest = self._read_header(read)

        def again(size: int) -> bytes:
            nonlocal rest
            piece, rest = rest[:size], rest[size:]
            piece = piece or read(size)
            self._copying.progress.advance(len(piece))
            return piece

        if self._kind == b"d":
            if self._target.exists() and not self._target.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "in the way of a directory", str(self._target))
            self._copy.mkdir()
            try:
                self._folders = unpack(again, self._copy)
            except (tarfile.TarError, EOFError) as error:
                self._broken = error  # the guest has more to say about it
        elif self._kind:
            self._write(again)

    def _read_header(self, read: Read) -> bytes:
        """Find out what comes; return what came with it."""
        mark = self._mark.encode()
        data = b""
        while data := data + (piece := read(PIECE)):
            _, found, after = data.partition(mark)
            header = _HEADER.match(after) if found else None
            if header is not None:
                self._kind = header[1] or b"?"
                self._size = int(header[2]) if header[2] and _SIZE.fullmatch(header[2]) else None
                return after[header.end() :]
            if not piece or len(data) > _LONGEST_GREETING:
                break
        return b""

    def _write(self, read: Read) -> None:
        if self._target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a directory is in the way of a file", str(self._target))
        if self._size is not None:
            self._copying.progress.expect(self._size)
        with self._copy.open("xb") as file:
            while piece := read(PIECE):
                file.write(piece)
        self._copy.chmod(permissions(_mode_of(self._kind)) if self._mode is None else self._mode)

    def _check_size(self, source: str) -> None:
        """Raise TransferError when the copy is shorter than the file, unless the file says so of itself wrongly."""
        copied = self._copy.stat().st_size
        if self._size is None or copied >= self._size:
            return  # what has grown since is there, too
        session = self._copying.carry_out(script('wc -c <"$t"', t=source))
        self._copying.check(session)
        if session.out.strip() != str(copied).encode():
            raise self._copying.error(f"it became shorter while it was read: {copied} bytes of {self._size} came")


def _only_changes(said: str) -> bool:
    return all(_CHANGED.search(line) for line in said.splitlines())


def _mode_of(listed: bytes) -> int:
    """Return the permissions in the first word that ls -l says, ``-rw-r--r--``."""
    if len(listed) < 10:
        return 0o644
    return sum(0o400 >> place for place, letter in enumerate(listed[1:10]) if letter in b"rwxst")
