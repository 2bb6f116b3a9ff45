"""Disk images made by qemu-img, whole and spoiled."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from pytest_kvm.qemu.binary import QEMUBinary
from tests.qemu.fakes import binary

QEMU_IMG = shutil.which("qemu-img") or "qemu-img"
# What looks into disks is the qemu-img on PATH: there is none beside this.
BINARY: QEMUBinary = replace(binary(), path=Path("/nowhere/qemu-system-x86_64"))


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run([QEMU_IMG, *arguments], check=True, stdout=subprocess.DEVNULL)


def make_qcow2(path: Path, *options: str | Path, size: str = "20M", data: int = 8) -> Path:
    """Make an image with ``data`` MiB written to it."""
    qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
    if data:
        qemu_img("bench", "-w", "-f", "qcow2", "-c", str(data), "-s", "1M", "--pattern", "7", path)
    return path
