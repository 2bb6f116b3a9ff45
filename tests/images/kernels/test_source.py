"""A kernel is found in a file, a build tree and an installation, with what belongs to it."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.images.kernels.banner import Banner, last_banner, read_banner
from pytest_kvm.images.kernels.config import parse_config
from pytest_kvm.images.kernels.source import find_kernel
from tests.guests.kernels import make_tree


def bzimage(path: Path, text: str) -> Path:
    """Write as much of a bzImage as says which kernel it is."""
    data = bytearray(0x600)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x300)
    data[0x500 : 0x500 + len(text)] = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("content", "banner"),
    [
        (b"", None),
        (b"MZ" + bytes(0x600), None),
        (b"\x7fELF" + bytes(1000), None),
        (
            b"\x7fELF" + bytes(100) + b"Linux version 6.9.0-rc2+ (me@host) (gcc 12, GNU ld 2.40) #17 SMP Mon Jan 1\n\0",
            Banner("6.9.0-rc2+", "#17 SMP Mon Jan 1"),
        ),
        (b"\x7fELF Linux version %s (%s@%s) (%s) %s\n\0", None),
    ],
)
def test_what_a_file_says(content: bytes, banner: Banner | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_banner(path) == banner


@pytest.mark.parametrize(
    ("text", "banner", "label"),
    [
        ("6.1.0 (me@host) #3 SMP PREEMPT_DYNAMIC Tue", Banner("6.1.0", "#3 SMP PREEMPT_DYNAMIC Tue"), "6.1.0-3"),
        ("6.1.0-56-cloud-amd64 (a@b) #1", Banner("6.1.0-56-cloud-amd64", "#1"), "6.1.0-56-cloud-amd64-1"),
        ("6.1.0", Banner("6.1.0", ""), "6.1.0"),
        ("something else", None, "bzImage"),
        ("", None, "bzImage"),
    ],
)
def test_what_a_bzimage_says(text: str, banner: Banner | None, label: str, tmp_path: Path) -> None:
    path = bzimage(tmp_path / "bzImage", text)
    assert read_banner(path) == banner
    assert find_kernel(path).label == label


def test_what_a_console_says() -> None:
    said = b"[    0.000000] Linux version 6.%d.0 (me@host) (gcc 12) #%d SMP Mon\r\n[    0.000000] Command line: a\r\n"
    assert last_banner(said % (1, 3) + said % (6, 5)) == Banner("6.6.0", "#5 SMP Mon")  # it has rebooted
    assert last_banner(b"Linux version\n") is None


def test_an_installation(installed_kernel: Path) -> None:
    kernel = find_kernel(installed_kernel)
    assert kernel.file.parent == installed_kernel / "boot"
    assert kernel.file.name == f"vmlinuz-{kernel.release}"
    assert kernel.version.startswith("#1 SMP")
    assert kernel.modules is not None
    assert kernel.modules.root == installed_kernel / "lib" / "modules" / kernel.release
    assert kernel.modules.paths["virtio_blk"].startswith("kernel/drivers/block/virtio_blk.ko")
    assert kernel.modules.builtin is not None
    assert "ext4" in kernel.modules.builtin or "ext4" in kernel.modules.paths
    assert kernel.config is not None
    assert parse_config(kernel.config())["CONFIG_VIRTIO_BLK"] in ("y", "m")
    # The file alone is as good: what belongs to it is found beside it.
    assert find_kernel(kernel.file) == kernel


def test_a_build_tree(installed_kernel: Path, tmp_path: Path) -> None:
    tree = make_tree(installed_kernel, tmp_path / "linux")
    kernel = find_kernel(tree)
    assert kernel.file == tree / "arch" / "x86" / "boot" / "bzImage"
    assert kernel.modules is not None
    assert kernel.modules.root == tree
    assert kernel.modules.paths["virtio_blk"].startswith("drivers/block/virtio_blk.ko")
    assert any(path.startswith("lib/") for path in kernel.modules.paths.values())
    assert kernel.config is not None
    assert find_kernel(kernel.file) == kernel
    # What "make modules_install" has put there is what would be installed.
    library = tree / "lib" / "modules" / kernel.release
    shutil.copytree(installed_kernel / "lib" / "modules" / kernel.release, library)
    installed = find_kernel(tree).modules
    assert installed is not None
    assert installed.root == library


def test_what_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^vm\(kernel='.*/none'\): there is no such file$"):
        find_kernel(tmp_path / "none")
    with pytest.raises(SpecError, match=r"no kernel is in it; name a build tree, or the file$"):
        find_kernel(tmp_path)
    for name in ("vmlinuz-6.1", "vmlinuz-6.2"):
        bzimage(tmp_path / name, "6.1 (a@b) #1")
    with pytest.raises(SpecError, match=r"2 kernels are in it \(vmlinuz-6\.1, vmlinuz-6\.2\); name a build tree"):
        find_kernel(tmp_path)
    tree = tmp_path / "tree"
    (tree / "include" / "config").mkdir(parents=True)
    (tree / "include" / "config" / "kernel.release").write_text("6.1.0\n")
    with pytest.raises(SpecError, match=r"tree has no arch/x86/boot/bzImage and no vmlinux; run make in it$"):
        find_kernel(tree)


def test_something_else_is_booted_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "unikernel"
    path.write_bytes(b"not Linux")
    kernel = find_kernel(path)
    assert (kernel.file, kernel.release, kernel.modules, kernel.label) == (path, "", None, "unikernel")


def test_configuration() -> None:
    text = '#\n# Linux/x86\n#\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D="a text"\nCONFIG_E=0x1000\n'
    assert parse_config(text) == {"CONFIG_A": "y", "CONFIG_B": "m", "CONFIG_D": "a text", "CONFIG_E": "0x1000"}
