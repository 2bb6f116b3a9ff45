"""The kernel inside a bzImage, which QEMU starts by itself (PVH): a guest need not unpack it then.

Emulated, a guest unpacks its kernel for longer than all that its firmware does.
"""

from __future__ import annotations

import lzma
import struct
import zlib

import zstandard

from pytest_kvm.images.builtin import elf
from pytest_kvm.images.kernels.banner import is_bzimage

# Linux, Documentation/arch/x86/boot.rst: the header of a bzImage, whose payload is there since version 2.08.
_SETUP_SECTORS, _VERSION, _PAYLOAD = 0x1F1, 0x206, 0x248
_OLDEST, _SECTOR = 0x0208, 512
# include/xen/interface/elfnote.h: where a kernel begins that is started as PVH does.
_OWNER, _ENTRY = b"Xen\0", 18


def unpacked(image: bytes) -> bytes | None:
    """Return the kernel that is packed into a bzImage; None when there is none that could be unpacked and started.

    Known are gzip, xz and zstd.
    """
    try:
        if not is_bzimage(image) or _number("<H", image, _VERSION) < _OLDEST:
            return None
        start = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR + _number("<I", image, _PAYLOAD)
        payload = image[start : start + _number("<I", image, _PAYLOAD + 4)]
        kernel = _unpack(payload)
        whole = len(kernel) == _number("<I", payload, len(payload) - 4)
        return kernel if whole and _has_entry(kernel) else None
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError, ValueError, struct.error):
        return None


def _number(layout: str, data: bytes, at: int) -> int:
    return int(struct.unpack_from(layout, data, at)[0])


def _unpack(payload: bytes) -> bytes:
    """Return the payload's content; behind it, or gzip's last part, is how many bytes that has."""
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    return b""


def _has_entry(kernel: bytes) -> bool:
    notes, at = elf.section(kernel, ".notes"), 0
    while at + 12 <= len(notes):
        owner, content, kind = struct.unpack_from("<III", notes, at)
        if (notes[at + 12 : at + 12 + owner], kind) == (_OWNER, _ENTRY):
            return True
        at += 12 + -(-owner // 4) * 4 + -(-content // 4) * 4
    return False
