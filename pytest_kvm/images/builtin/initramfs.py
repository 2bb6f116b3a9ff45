"""Write initramfs archives: cpio in the "newc" format, the same bytes for the same content."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory, link or node: ``mode`` holds type and permissions, ``data`` content or target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class Initramfs:
    """A tree of files in memory, all owned by root and dated 1970; parents are made as needed."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; an existing one gets the new mode."""
        name = self._place(path)
        if name:
            self.entries[name] = Entry(stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add or replace a regular file."""
        self.entries[self._place(path)] = Entry(stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add or replace a symbolic link."""
        self.entries[self._place(path)] = Entry(stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add or replace a character device node."""
        self.entries[self._place(path)] = Entry(stat.S_IFCHR | mode, b"", (major, minor))

    def to_bytes(self) -> bytes:
        """Return the archive, which the kernel unpacks as it is or compressed."""
        return b"".join(self._chunks())

    def _place(self, path: str) -> str:
        pure = PurePosixPath(path.lstrip("/"))
        if ".." in pure.parts:
            raise ValueError(f"path {path!r} leaves the archive")
        name = "" if str(pure) == "." else str(pure)
        for parent in pure.parents:
            if str(parent) != ".":
                existing = self.entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
                if not stat.S_ISDIR(existing.mode):
                    raise ValueError(f"{path!r} would lie under {str(parent)!r}, which is not a directory")
        return name

    def _chunks(self) -> Iterator[bytes]:
        # Sorted by their parts, so that a directory always precedes what it holds: the kernel makes no
        # parents.
        ordered = sorted(self.entries.items(), key=lambda item: item[0].split("/"))
        for inode, (name, entry) in enumerate(ordered, start=1):
            yield from _member(inode, name, entry)
        yield from _member(0, "TRAILER!!!", Entry(0))


def _member(inode: int, name: str, entry: Entry) -> Iterator[bytes]:
    # Fields: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    yield header + bytes(-len(header) % 4)
    yield entry.data + bytes(-len(entry.data) % 4)
