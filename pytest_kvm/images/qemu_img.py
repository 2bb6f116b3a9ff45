"""The program qemu-img: disk images are made, and looked into, by it."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.process import dying_with_parent


class QemuImgError(Exception):
    """qemu-img does not do what was asked, and says why; ``returncode`` is its exit status."""

    def __init__(self, message: str, returncode: int) -> None:
        super().__init__(message)
        self.returncode = returncode


def qemu_img(binary: QEMUBinary, *arguments: str) -> str:
    """Run ``qemu-img`` and return what it prints; raises QemuImgError, HostError when it is not installed."""
    beside = binary.path.resolve().parent / "qemu-img"
    program = str(beside) if beside.exists() else shutil.which("qemu-img")
    if program is None:
        raise HostError(
            "qemu-img is not installed; drives that are files need it",
            hint="install it with 'pytest-kvm doctor --install'",
        )
    result = subprocess.run(
        dying_with_parent([program, *arguments]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    if result.returncode:
        raise QemuImgError(f"qemu-img refuses: {result.stderr.strip()}", result.returncode)
    return result.stdout


def create_overlay(binary: QEMUBinary, *, on: Path, format_: str, at: Path) -> None:
    """Make an overlay on the disk ``on``; raises OSError."""
    try:
        qemu_img(binary, "create", "-q", "-f", "qcow2", "-F", format_, "-b", str(on), str(at))
    except QemuImgError as error:
        raise OSError(errno.EIO, str(error), str(at)) from error
