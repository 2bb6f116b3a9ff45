"""Disks with something on them, read and written without the functions that are tested."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.images.disks import qemu_img

MIB = 1 << 20


def write(path: Path, pattern: int, *, at: int = 0, mib: int = 1) -> Path:
    """Fill so many MiB of a disk with a byte, from ``at`` on; in MiB."""
    format_ = "qcow2" if path.read_bytes()[:4] == b"QFI\xfb" else "raw"
    places = ("-o", str(at * MIB), "-c", str(mib), "-s", "1M")
    qemu_img("bench", "-w", "-f", format_, *places, "--pattern", str(pattern), path)
    return path


def content(path: Path, format_: str = "qcow2") -> bytes:
    """Return what a guest reads."""
    copy = path.with_name("content.raw")
    qemu_img("convert", "-f", format_, "-O", "raw", path, copy)
    read = copy.read_bytes()
    copy.unlink()
    return read


def tree(folder: Path) -> dict[str, str]:
    """Return all files below a folder, each with its checksum."""
    return {
        os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }
