"""Read ELF64 files: their sections, and which libraries they need."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

_DT_NEEDED = 1


def _headers(data: bytes | mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Yield each section's name, where its content is, and its size."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a little-endian ELF64 file")
    # Offsets are those of Elf64_Ehdr and Elf64_Shdr in elf(5). Little-endian: all that x86 and arm64 kernels
    # use.
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + index * entry_size) for index in range(count)]
    _, _, _, _, names_offset, names_size = headers[names_index]
    names = data[names_offset : names_offset + names_size]
    for name, kind, _, _, offset, size in headers:
        title = names[name : names.index(b"\0", name)].decode("ascii", "replace")
        yield title, offset, 0 if kind == 8 else size  # 8: SHT_NOBITS occupies no bytes


def section(data: bytes | mmap.mmap, name: str) -> bytes:
    """Return the content of the named section of an ELF64 file, empty if there is none.

    Raises ValueError if ``data`` is not such a file.
    """
    try:
        return next((data[at : at + size] for title, at, size in _headers(data) if title == name), b"")
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"damaged ELF file: {error}") from error


def has_section(data: bytes | mmap.mmap, *names: str) -> bool:
    """Return whether an ELF64 file has one of the sections; raises ValueError as ``section`` does."""
    try:
        return any(title in names for title, _, _ in _headers(data))
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"damaged ELF file: {error}") from error


def needed(data: bytes) -> list[str]:
    """Return the sonames that an ELF64 program or library asks the dynamic linker for.

    Raises ValueError if ``data`` is not an ELF64 file.
    """
    strings = section(data, ".dynstr")
    dynamic = section(data, ".dynamic")
    found = []
    for tag, value in struct.iter_unpack("<QQ", dynamic[: len(dynamic) // 16 * 16]):
        if tag == _DT_NEEDED:
            found.append(strings[value : strings.index(b"\0", value)].decode("ascii"))
    return found
