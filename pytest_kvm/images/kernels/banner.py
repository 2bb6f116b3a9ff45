"""Which Linux is in a file: what the kernel says of itself when it starts."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

_BANNER = re.compile(rb"Linux version (\S+) \([^\n]*?\)[^\n]*?(#\d[^\n\0]*)")
# The boot protocol's header (Documentation/arch/x86/boot.rst): magic, and where the version is, less 0x200.
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_VERSION_AT, _HEADER = 0x20E, 0x200
_LONGEST = 1024


@dataclass(frozen=True)
class Banner:
    """``release`` is what ``uname -r`` says, ``version`` what ``uname -v`` does: it begins with the build's number."""

    release: str
    version: str


def is_bzimage(start: bytes) -> bool:
    """Return whether a file that begins like this is a bzImage."""
    return start[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC


def read_banner(path: Path) -> Banner | None:
    """Return what a bzImage or vmlinux says of itself, None for a file that is no Linux. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(_HEADER + 0x400)
        if is_bzimage(start):
            (at,) = struct.unpack_from("<H", start, _VERSION_AT)
            file.seek(at + _HEADER)
            return _from_header(file.read(_LONGEST)) if at else None
        if start[:4] != b"\x7fELF":
            return None
        # One with debug information has 600 MB, of which the banner is near the beginning.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = _BANNER.search(content)
            return _said(match) if match else None


def last_banner(text: bytes) -> Banner | None:
    """Return what the kernel that booted last said of itself on a console, None if none did."""
    match = None
    for match in _BANNER.finditer(text.replace(b"\r", b"")):  # noqa: B007 - the last one is what counts
        pass
    return _said(match) if match else None


def _said(match: re.Match[bytes]) -> Banner:
    return Banner(match[1].decode(errors="replace"), match[2].decode(errors="replace").strip())


def _from_header(data: bytes) -> Banner | None:
    # "6.1.0 (user@host) #1 SMP …"
    words = data.partition(b"\0")[0].decode(errors="replace")
    release, _, rest = words.partition(" ")
    if not re.match(r"\d+\.\d+", release):
        return None
    return Banner(release, rest[rest.index("#") :].strip() if "#" in rest else "")
