"""Copying into the guest."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import secrets
import stat
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from pytest_kvm.guest.ssh.transfer import PIECE, Copying, Progress, Way, guest_path, script

if TYPE_CHECKING:
    from pytest_kvm.guest.ssh.session import Send, Session

_MODE_OF_BYTES = 0o644

# $t is the target, $n what it is called in a directory, $w a name that nothing has, $i says where it went.
_TARGET = """\
[ -z "$s" ] || [ -d "$t" ] || f "there is no directory $t"
if [ -d "$t" ]; then [ "$n" ] || f "$t is a directory"; t=${t%/}/$n; i=in; fi
"""
_PARENT = """\
d=${t%/*}/
[ -d "$d" ] || f "there is no directory $d"
"""
# A file that is there is replaced when the new one is complete. A device or a pipe is written to; so is a file in a
# directory that takes no new one, such as those of /proc. When the connection breaks off, cat ends as well, and says
# nothing: that is what the size is for. ls knows it; wc would read it all again.
_FILE = f"""\
{_TARGET}
[ -d "$t" ] && f "$t is a directory"
if [ -L "$t" ]; then l=$(readlink -f "$t") && [ "$l" ] && t=$l; fi
{_PARENT}
w=$d$w
if [ -e "$t" ] && [ ! -f "$t" ]; then w=$t
elif (umask 077; set -C; true >"$w") 2>/dev/null; then trap 'rm -f "$w"' 0; trap 'exit 1' 1 2 13 15
else w=$t; fi
cat >"$w" || exit 1
if [ "$w" = "$t" ]; then [ -z "$m" ] || chmod "$m" "$t" || exit 1
else
ls -lnd "$w" | {{ read -r a b c e x g; [ "$x" = "$z" ]; }} || f "only a part of its $z bytes has come"
chmod "${{m:-$k}}" "$w" && mv -f "$w" "$t" || exit 1
fi
echo "$i"
"""
# The last member of the archive tells that it is complete: not every tar minds an end in between.
_TREE = f"""\
{_TARGET}
if [ -d "$t" ]; then w=$t/$w
elif [ -e "$t" ] || [ -L "$t" ]; then f "$t is not a directory"
else {_PARENT} w=$d$w; fi
trap 'rm -rf "$w"' 0; trap 'exit 1' 1 2 13 15
(umask 077; mkdir "$w") && tar xpf - -C "$w" || exit 1
[ -e "$w/end" ] || f "only a part of it has come"
if [ -d "$t" ]; then cp -af "$w/tree/." "$t/"; else mv "$w/tree" "$t" && chmod "$k" "$t"; fi || exit 1
echo "$i"
"""


def put(
    way: Way, local: str | os.PathLike[str] | bytes, remote: str, *, mode: int | None, timeout: float | None
) -> str:
    """Copy a file, a directory, or bytes; see SSH.put."""
    told = f"{len(local)} bytes" if isinstance(local, bytes) else repr(os.fspath(local))
    copying = Copying(way, "put", f"{told} to {remote!r}", remote, timeout)
    words = {
        "t": guest_path(remote),
        "s": "1" if remote.endswith("/") else "",
        "w": f".pytest-kvm.{secrets.token_hex(6)}",
        "i": "",
    }
    if isinstance(local, bytes):
        words |= {"n": "", "k": f"{_MODE_OF_BYTES:o}", "m": "" if mode is None else f"{mode:o}", "z": str(len(local))}
        _put_file(copying, words, io.BytesIO(local), len(local))
        return remote
    path = Path(os.path.abspath(local))
    kind = path.stat().st_mode
    words |= {"n": path.name, "k": f"{stat.S_IMODE(kind):o}"}
    if stat.S_ISDIR(kind):
        if mode is not None:
            raise ValueError(f"mode={mode:#o} is for a file; {str(path)!r} is a directory, whose files keep theirs")
        into = _put_tree(copying, words, path)
    elif stat.S_ISREG(kind):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            into = _put_file(copying, words | {"m": "" if mode is None else f"{mode:o}", "z": str(size)}, file, size)
    else:
        raise OSError(errno.EINVAL, "neither a file nor a directory", str(path))
    return posixpath.join(remote, path.name) if into else remote


def _put_file(copying: Copying, words: dict[str, str], file: IO[bytes], size: int) -> bool:
    """Copy an open file; return whether it went into a directory under its own name."""
    copying.progress.expect(size)

    def produce(send: Send) -> None:
        left = size
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise OSError(
                    errno.EIO, f"became shorter while it was read, {left} bytes of {size} are missing", file.name
                )
            send(piece)
            left -= len(piece)
            copying.progress.advance(len(piece))

    session = copying.carry_out(script(_FILE, **words), produce=produce)
    copying.check(session)
    return _went_in(session)


def _put_tree(copying: Copying, words: dict[str, str], path: Path) -> bool:
    """Copy a directory; return whether it went into another one under its own name."""
    copying.progress.expect(_size_of(path))

    def produce(send: Send) -> None:
        stream = cast("IO[bytes]", _Sender(send, copying.progress))
        # Of all formats for long names and large files, this is the one that busybox's tar has always known.
        with tarfile.open(
            fileobj=stream, mode="w|", bufsize=PIECE, format=tarfile.GNU_FORMAT, errors="surrogateescape"
        ) as tar:
            tar.add(os.path.realpath(path), "tree", filter=_for_guest)
            tar.addfile(tarfile.TarInfo("end"))

    session = copying.carry_out(script(_TREE, **words), produce=produce)
    copying.check(session)
    return _went_in(session)


def _went_in(session: Session) -> bool:
    return session.out.split()[-1:] == [b"in"]  # before it comes what the user's profile prints, if it does


class _Sender:
    """What tarfile writes to."""

    def __init__(self, send: Send, progress: Progress) -> None:
        self._send = send
        self._progress = progress

    def write(self, data: bytes) -> None:
        self._send(data)
        self._progress.advance(len(data))


def _for_guest(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Let the file belong to who unpacks it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if member.name == "tree":
        member.mode |= 0o700  # until it is where it belongs
    return member


def _size_of(path: Path) -> int:
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
