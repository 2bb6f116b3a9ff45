"""An image comes into being as a whole, under its name, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_kvm.images.verbs.call import Call

# block/file-posix.c: whoever has an image open holds a lock on byte 100 for BLK_PERM_CONSISTENT_READ, 101 for
# BLK_PERM_WRITE …
_WRITE_LOCK = 101
_FLOCK = struct.Struct("hhqqi4x")
# Hard links are unknown there: vfat, some network file systems.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def new_image(call: Call, path: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield where an image is to be written; at the end of the block it takes the place of ``path``.

    It is in a folder of its own beside that, by the same name: formats such as vmdk have it in them. Refused are an
    existing file unless ``overwrite`` is said, one of the ``sources``, and one that a machine writes to. Raises
    SpecError, QemuImgError; then nothing has changed.
    """
    final = Path(os.path.realpath(path)) if path.is_symlink() else path
    call.folder(final.parent)
    _check_place(call, path, final, overwrite=overwrite, sources=sources)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".pytest-kvm-", dir=final.parent))
    except OSError as error:
        raise call.failed(error, path) from error
    try:
        made = folder / final.name
        yield made
        _put(call, made, final, overwrite=overwrite)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_place(call: Call, path: Path, final: Path, *, overwrite: bool, sources: Sequence[Path]) -> None:
    if not os.path.lexists(final):
        return
    for source in sources:
        if os.path.exists(source) and os.path.samefile(source, final):
            raise call.rejected(f"{str(path)!r} would be written, and is read meanwhile")
    if not final.is_file():
        what = "a directory" if final.is_dir() else "no file"
        raise call.rejected(f"{str(path)!r} is {what}, and is kept; name a file")
    if not overwrite:
        raise _kept(call, path)
    call.existing(final, "the file that would be replaced,")
    if _written_to(final):
        raise call.in_use(final)


def _kept(call: Call, path: Path) -> Exception:
    which = "there is a file already" if path == call.path else f"there is a file {str(path)!r} already"
    return call.rejected(f"{which}, and it is kept; overwrite=True replaces it")


def _written_to(file: Path) -> bool:
    """Return whether a machine, or anything else that locks as QEMU does, writes to a file."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITE_LOCK, 1, 0)
    with file.open("rb") as stream:
        answer = fcntl.fcntl(stream, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _put(call: Call, made: Path, final: Path, *, overwrite: bool) -> None:
    """Give an image its name, unless somebody else was faster."""
    try:
        if overwrite:
            os.replace(made, final)
        else:
            _link(made, final)
    except FileExistsError:
        raise _kept(call, final) from None
    except OSError as error:
        raise call.failed(error, final) from error


def _link(made: Path, final: Path) -> None:
    try:
        os.link(made, final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(made, final)
