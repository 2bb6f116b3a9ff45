"""What is in the files behind drives, and how much room they take."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm import VM
from pytest_kvm.images.qemu_img import qemu_img


def file_of(vm: VM, id: str) -> tuple[Path, str]:
    """The host's file behind a drive, and its format."""
    return next((file.path, file.format) for planned, file in vm._plan.drives if planned.id == id)


def allocated(vm: VM, id: str) -> int:
    """How many bytes the host's file takes."""
    return file_of(vm, id)[0].stat().st_blocks * 512


def content(vm: VM, id: str, tmp_path: Path) -> bytes:
    """What is on a drive of a machine that is off."""
    path, format_ = file_of(vm, id)
    raw = tmp_path / "content.raw"
    qemu_img(vm._binary, "convert", "-f", format_, "-O", "raw", str(path), str(raw))
    return raw.read_bytes()
