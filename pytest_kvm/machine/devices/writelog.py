"""A log of what was written to a disk, as QEMU's blklogwrites keeps it: what of it was flushed is written again.

The format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock, then
entries of one sector each, every one followed by its data. All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC, _VERSION = 0x6A736677736872, 1
_SUPER, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_CHUNK = 1 << 20


class NotALog(ValueError):
    """A file is not a log of writes."""


@dataclass(frozen=True)
class _Entry:
    """Where on the disk it is, how long, and where in the log its data are, all in bytes."""

    offset: int
    length: int
    flags: int
    data: int


def replay(log: int, disk: int) -> int:
    """Write to a raw disk what a log says was flushed to it, in order; return how many writes that are.

    These are the writes before the last flush, and those that went past the cache (FUA). Both are descriptors. Raises
    NotALog, OSError.
    """
    entries = list(_entries(log))
    flushes = [number for number, entry in enumerate(entries) if entry.flags & _FLUSH]
    last = flushes[-1] if flushes else -1
    kept = [
        entry
        for number, entry in enumerate(entries)
        if entry.length and not entry.flags & _DISCARD and (number < last or entry.flags & _FUA)
    ]
    for entry in kept:
        for start in range(0, entry.length, _CHUNK):
            piece = os.pread(log, min(_CHUNK, entry.length - start), entry.data + start)
            while piece:
                done = os.pwrite(disk, piece, entry.offset + start)
                start, piece = start + done, piece[done:]  # noqa: PLW2901
    return len(kept)


def _entries(log: int) -> Iterator[_Entry]:
    size = os.fstat(log).st_size
    header = os.pread(log, _SUPER.size, 0)
    if len(header) < _SUPER.size:
        return  # nothing was written
    magic, version, number, sector = _SUPER.unpack(header)
    if (magic, version) == (0, 0):
        return
    if (magic, version) != (_MAGIC, _VERSION) or sector < _ENTRY.size:
        raise NotALog(f"its superblock has magic {magic:#x}, version {version}, sectors of {sector} bytes")
    position = sector
    for _ in range(number):
        found = os.pread(log, _ENTRY.size, position)
        if len(found) < _ENTRY.size:
            return
        start, sectors, flags, _length = _ENTRY.unpack(found)
        position += sector
        length = sectors * sector
        has_data = not flags & _DISCARD
        if (not sectors and not flags) or (has_data and position + length > size):
            return  # QEMU was killed in the middle of it
        yield _Entry(start * sector, length, flags, position)
        position += length if has_data else 0
