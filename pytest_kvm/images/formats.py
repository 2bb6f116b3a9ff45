"""What a disk image is, by its own first bytes; nobody else is asked, and nothing that it refers to is opened."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

# docs/interop/qcow2.txt in QEMU's source; the numbers below are its, too.
QCOW2_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES_AT = 72  # version 3 only, and so is what follows
_LENGTH_AT = 100
_EXTERNAL_DATA = 1 << 2
_CORRUPT = 1 << 1
_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441
_LONGEST_NAME = 1023
_CLUSTER_BITS = (9, 21)

# Disk images of other kinds (block/*.c in QEMU), by what they begin with …
_DISKS = (
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"QED\0", "qed"),
    (b"conectix", "vpc"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"LUKS\xba\xbe", "luks"),
)
_VDI = (0x40, b"\x7f\x10\xda\xbe")
# … and what is none.
_OTHERS = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first: gunzip"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first: unzstd"),
    (b"BZh", "compressed with bzip2; unpack it first: bunzip2"),
    (b"PK\x03\x04", "a zip archive; unpack it first: unzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
)
_TAR = (257, b"ustar")
_PAGES = (b"<!doctype", b"<html", b"<?xml")

SECTOR = 512
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"
_ENTRIES_AT, _ENTRY = 446, 16
_PROTECTIVE = 0xEE


class NotADisk(ValueError):
    """A file is no disk image that can be used as it is; the text says what it is."""


@dataclass(frozen=True)
class Qcow2:
    """What a qcow2 header says: the other files that the image consists of, and its marks.

    ``backing`` and ``data`` are names as they are written, which start at the image's folder when they are relative.
    """

    backing: str | None = None
    backing_format: str | None = None
    data: str | None = None
    encrypted: bool = False
    corrupt: bool = False


def detect_format(path: Path) -> str:
    """Return qcow2 for a file that begins like one, else raw. Raises OSError."""
    with path.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"


def look(path: Path) -> str:
    """Return the format of what shall be a disk image; raises NotADisk with what it is instead, OSError."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise NotADisk("it is empty")
    if head.startswith(QCOW2_MAGIC):
        return "qcow2"
    for magic, name in _DISKS:
        if head.startswith(magic):
            raise _foreign(name)
    if _has(head, *_VDI):
        raise _foreign("vdi")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise NotADisk(f"it is {what}")
    if _has(head, *_TAR):
        raise NotADisk("it is a tar archive; unpack it first: tar -x")
    if head.lstrip().lower().startswith(_PAGES):
        raise NotADisk("it is a web page, as servers send in place of a file that they do not have")
    return "raw"


def _foreign(name: str) -> NotADisk:
    return NotADisk(f"it looks like {name}; say so if it is: format={name!r} (or 'raw')")


def _has(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic


def names_file(name: str) -> bool:
    """Return whether QEMU takes a name in an image for that of a file: without a protocol (path_has_protocol)."""
    return ":" not in name.partition("/")[0]


def read_qcow2(path: Path) -> Qcow2:
    """Return what a qcow2 image's header says, as QEMU reads it (qcow2_do_open and qcow2_read_extensions).

    Whatever QEMU would take from another place than we do would be a name that nobody has looked at. Raises NotADisk
    when it makes no sense, OSError.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(QCOW2_MAGIC):
            raise NotADisk("it is no qcow2 image, or not all of it")
        _, version, offset, size, bits, _, crypt, *_ = _HEADER.unpack(head)
        cluster = 1 << bits if _CLUSTER_BITS[0] <= bits <= _CLUSTER_BITS[1] else 0
        if version not in (2, 3) or max(offset, 1) > cluster or size > min(_LONGEST_NAME, cluster - offset):
            raise NotADisk(f"its qcow2 header is damaged (version {version})")
        head += file.read(cluster - len(head))
    features, start = 0, _FEATURES_AT
    if version == 3:
        if len(head) < _LENGTH_AT + 4:
            raise NotADisk(f"its qcow2 header is damaged (version {version})")
        features = struct.unpack_from(">Q", head, _FEATURES_AT)[0]
        start = struct.unpack_from(">I", head, _LENGTH_AT)[0]
    extensions = _extensions(head, start, offset or cluster)
    backing = _name(head[offset : offset + size]) if offset else None
    data = extensions.get(_DATA_FILE, "") if features & _EXTERNAL_DATA else None
    return Qcow2(backing, extensions.get(_BACKING_FORMAT), data, bool(crypt), bool(features & _CORRUPT))


def _extensions(head: bytes, position: int, end: int) -> dict[int, str]:
    found = {}
    while position < end and position + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, position)
        if kind == 0:
            break
        position += 8
        if length > end - position:
            raise NotADisk("its qcow2 header is damaged (an extension is too long)")
        if kind in (_BACKING_FORMAT, _DATA_FILE):
            found[kind] = _name(head[position : position + length])
        position += (length + 7) // 8 * 8
    return found


def _name(data: bytes) -> str:
    if b"\0" in data:
        raise NotADisk("its qcow2 header is damaged (a name with a NUL byte)")
    return data.decode(errors="surrogateescape")


def partitions_end(path: Path) -> int:
    """Return where, in bytes, a raw disk's partition table says that the disk ends at the earliest; 0 without one.

    Reads the MBR, and the GPT's header behind a protective one (UEFI specification, 5.2.3 and 5.3.2). Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(2 * SECTOR)
    if len(head) < SECTOR or not _has(head, _SIGNATURE_AT, _SIGNATURE):
        return 0
    end = 0
    for number in range(4):
        entry = head[_ENTRIES_AT + number * _ENTRY :][:_ENTRY]
        kind, (first, sectors) = entry[4], struct.unpack_from("<II", entry, 8)
        if kind == _PROTECTIVE:
            gpt = head[SECTOR:]
            return (
                (struct.unpack_from("<Q", gpt, 32)[0] + 1) * SECTOR
                if len(gpt) >= 40 and gpt.startswith(b"EFI PART")
                else 0
            )
        # A boot sector of a file system has code here: what is no table is none at all.
        if entry[0] not in (0, 0x80):
            return 0
        if kind and sectors:
            end = max(end, (first + sectors) * SECTOR)
    return end
