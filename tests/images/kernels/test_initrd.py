"""The built-in guest's initramfs gets the modules of another kernel."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.images.kernels.initrd import _without_modules, fitted
from pytest_kvm.images.kernels.source import Kernel, find_kernel


@pytest.fixture
def guest() -> Path:
    return Path(str(tiny_image().initrd))


def test_it_is_made_once(installed_kernel: Path, guest: Path, tmp_path: Path) -> None:
    kernel = find_kernel(installed_kernel)
    made = fitted(guest, kernel, tmp_path)
    content = made.read_bytes()
    assert f"lib/modules/{kernel.release}/kernel/drivers/net/virtio_net.ko".encode() in content
    assert b"lib/modules/6.12" not in content
    assert b"bin/busybox" in content
    inode = made.stat().st_ino
    assert fitted(guest, kernel, tmp_path) == made
    assert made.stat().st_ino == inode
    assert [path.name for path in (tmp_path / "initrds").iterdir()] == [made.name]
    # A module that was built anew is another one.
    os.utime(installed_kernel / "lib" / "modules" / kernel.release / "modules.builtin")
    assert fitted(guest, replace(kernel, modules=None), tmp_path) != made


def test_one_that_nobody_uses_is_removed(installed_kernel: Path, guest: Path, tmp_path: Path) -> None:
    old = tmp_path / "initrds" / "old.img"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    fitted(guest, find_kernel(installed_kernel), tmp_path)
    assert not old.exists()


def test_a_kernel_that_cannot_be_reached(guest: Path, tmp_path: Path) -> None:
    root = tmp_path / "lib" / "modules" / "6.1.0"
    root.mkdir(parents=True)
    (root / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    from pytest_kvm.images.kernels.source import Modules

    kernel = Kernel(tmp_path / "bzImage", "6.1.0", "#1", Modules(root))
    with pytest.raises(SpecError, match=r"^kernel 6\.1\.0 has no virtio_console, neither built in nor as a module in "):
        fitted(guest, kernel, tmp_path)
    assert list((tmp_path / "initrds").iterdir()) == []


def test_a_full_disk(guest: Path, tmp_path: Path) -> None:
    (tmp_path / "initrds").touch()
    with pytest.raises(ImageUnavailable, match=r"cannot be put on top of kernel 6\.1\.0"):
        fitted(guest, Kernel(tmp_path / "bzImage", "6.1.0"), tmp_path)


def test_nothing_else_is_left_out() -> None:
    tree = Initramfs()
    tree.file("bin/sh", b"one")
    tree.file("lib/modules/6.1/kernel/a.ko", b"two")
    tree.file("lib/modules.txt", b"three")
    tree.symlink("sbin/init", "/bin/sh")
    wanted = Initramfs({name: entry for name, entry in tree.entries.items() if not name.startswith("lib/modules/")})
    names = [piece[110:].partition(b"\0")[0] for piece in _without_modules(tree.to_bytes())]
    assert names == [*sorted((name.encode() for name in wanted.entries), key=lambda n: n.split(b"/")), b"TRAILER!!!"]
