"""Read an initramfs archive: cpio in the "newc" format, not compressed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"070701"
_HEADER = 110


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of the archive."""

    path: str
    mode: int
    data: bytes


def regular_files(archive: bytes) -> Iterator[File]:
    """Yield the archive's regular files. Raises ValueError if it is not such an archive."""
    position = 0
    while True:
        header = archive[position : position + _HEADER]
        if not header.startswith(_MAGIC):
            raise ValueError(f"no cpio header at byte {position}")
        # Fields: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
        fields = [int(header[start : start + 8], 16) for start in range(len(_MAGIC), _HEADER, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[position + _HEADER : position + _HEADER + name_size - 1].decode()
        if name == "TRAILER!!!":
            return
        start = _aligned(position + _HEADER + name_size)
        if stat.S_ISREG(mode):
            yield File(name, stat.S_IMODE(mode), archive[start : start + size])
        position = _aligned(start + size)


def _aligned(position: int) -> int:
    return -(-position // 4) * 4
