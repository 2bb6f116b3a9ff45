"""The small parts that a guest is put together with: cpio, ELF, modules, packages, keys."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
from pathlib import Path

import pytest
import zstandard

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import elf
from pytest_kvm.images.builtin.deb import members, merged
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.modules import decompress, module_name, read_info, select
from pytest_kvm.images.keys import existing_keys, make_keys
from tests.images.builtin import fakes


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of an archive's members, in its order."""
    found: dict[str, tuple[int, bytes]] = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        start = place + 110
        name = data[start : start + fields[11] - 1].decode()
        start = -(-(start + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[start : start + fields[6]])
        place = -(-(start + fields[6]) // 4) * 4


def _tree() -> Initramfs:
    tree = Initramfs()
    tree.file("/etc/a/file", b"content", 0o640)
    tree.symlink("bin/sh", "busybox")
    tree.character_device("dev/console", 5, 1)
    tree.directory("tmp", 0o1777)
    tree.directory("/")
    return tree


def test_initramfs_has_parents_before_children() -> None:
    found = read_cpio(_tree().to_bytes())
    assert list(found) == ["bin", "bin/sh", "dev", "dev/console", "etc", "etc/a", "etc/a/file", "tmp"]
    assert found["etc/a/file"] == (stat.S_IFREG | 0o640, b"content")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["tmp"][0] == stat.S_IFDIR | 0o1777
    assert _tree().to_bytes() == _tree().to_bytes()


def test_initramfs_keeps_what_it_holds_together() -> None:
    tree = _tree()
    with pytest.raises(ValueError, match="leaves the archive"):
        tree.file("../etc/passwd", b"")
    with pytest.raises(ValueError, match="not a directory"):
        tree.file("bin/sh/x", b"")


def test_elf() -> None:
    assert elf.section(fakes.elf({".a": b"x", ".b": b"yy"}), ".b") == b"yy"
    assert elf.section(fakes.elf(), ".b") == b""
    assert elf.needed(fakes.library("libc.so.6", "libz.so.1")) == ["libc.so.6", "libz.so.1"]
    with pytest.raises(ValueError, match="not a little-endian ELF64"):
        elf.section(b"#!/bin/sh", ".a")
    with pytest.raises(ValueError, match="damaged"):
        elf.section(fakes.elf({".a": b"x"})[:-30], ".a")


def test_module_info() -> None:
    info = read_info(fakes.module(depends="virtio,virtio-ring", aliases=("pci:v*",), softdep="pre: crc32c"))
    assert info.depends == ("virtio", "virtio_ring")
    assert info.aliases == ("pci:v*",)
    assert info.softdeps == ("pre: crc32c",)
    assert module_name("kernel/a/virtio-rng.ko.xz") == "virtio_rng"
    with pytest.raises(ValueError, match="not a kernel module"):
        read_info(fakes.elf())


def test_decompression() -> None:
    assert decompress("a.ko", b"x") == b"x"
    assert decompress("a.ko.xz", lzma.compress(b"x")) == b"x"
    assert decompress("a.ko.gz", gzip.compress(b"x")) == b"x"
    assert decompress("a.ko.zst", zstandard.compress(b"x")) == b"x"
    for ending in ("xz", "gz", "zst"):
        with pytest.raises(ImageUnavailable, match=rf"a\.ko\.{ending} cannot be uncompressed"):
            decompress(f"a.ko.{ending}", b"x")
    with pytest.raises(ImageUnavailable, match="not known"):
        decompress("a.ko.lz4", b"x")


def test_modules_come_with_what_they_need() -> None:
    files = {
        "kernel/ring.ko.xz": lzma.compress(fakes.module()),
        "kernel/virtio.ko.xz": lzma.compress(fakes.module(depends="ring")),
        "kernel/fail-over.ko": fakes.module(),
        "kernel/virtio_net.ko": fakes.module(
            depends="fail-over,virtio", aliases=("virtio:d1v*", "a b"), softdep="pre: crc"
        ),
        "kernel/crc.ko": fakes.module(),
        "kernel/other.ko": fakes.module(),
    }
    available = {module_name(path): path for path in files}
    chosen = select(["virtio-net", "virtiofs", "nowhere"], available, files.__getitem__, ["virtiofs"])
    assert set(chosen.files) == {
        "kernel/ring.ko",
        "kernel/virtio.ko",
        "kernel/fail-over.ko",
        "kernel/virtio_net.ko",
        "kernel/crc.ko",
    }
    assert chosen.missing == ("nowhere",)
    # What must be loaded first stands last.
    dependencies = dict(line.split(":") for line in chosen.tables["modules.dep"].splitlines())
    assert dependencies["kernel/virtio_net.ko"] == " kernel/virtio.ko kernel/ring.ko kernel/fail-over.ko"
    assert dependencies["kernel/ring.ko"] == ""
    assert chosen.tables["modules.alias"] == "alias virtio:d1v* virtio_net\n"
    assert chosen.tables["modules.softdep"] == "softdep virtio_net pre: crc\n"


def test_module_that_cannot_work() -> None:
    files = {"a.ko": fakes.module(depends="nowhere"), "b.ko": b"text"}
    available = {module_name(path): path for path in files}
    with pytest.raises(ImageUnavailable, match="module a needs nowhere"):
        select(["a"], available, files.__getitem__)
    with pytest.raises(ImageUnavailable, match=r"b\.ko cannot be read"):
        select(["b"], available, files.__getitem__)


def test_deb(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.fail("dpkg-deb is not installed (tox installs it)")
    files: dict[str, bytes | str] = {"/lib/a": b"A", "/usr/lib/b": "a", "/usr/share/doc/c": b"C"}
    deb = fakes.build_deb(fakes.FakePackage("fake", files), tmp_path)
    found = {member.path: member for member in members(deb, lambda path: path.startswith("usr/lib/"))}
    assert found["usr/lib/a"].data == b"A"
    assert found["usr/lib/b"].target == "a"
    assert len(found) == 2
    deb.write_bytes(deb.read_bytes()[:-200])
    with pytest.raises(ImageUnavailable, match="dpkg-deb cannot read the package"):
        list(members(deb, lambda _path: True))


def test_deb_without_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageUnavailable, match="dpkg-deb, which opens its packages, is not installed"):
        list(members(tmp_path / "x.deb", lambda _path: True))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("./lib/x", "usr/lib/x"), ("./usr/lib/x", "usr/lib/x"), ("bin/sh", "usr/bin/sh"), ("./etc/x", "etc/x")],
)
def test_merged_usr(path: str, expected: str) -> None:
    assert merged(path) == expected


def test_keys(tmp_path: Path) -> None:
    from paramiko import Ed25519Key

    directory = tmp_path / "ssh"
    assert existing_keys(directory) is None
    keys = make_keys(directory)
    assert existing_keys(directory) == keys
    assert stat.S_IMODE(keys.client.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.host_dropbear.stat().st_mode) == 0o600
    client = Ed25519Key.from_private_key_file(str(keys.client))
    assert keys.client_public == f"ssh-ed25519 {client.get_base64()}"
    assert keys.host_dropbear.read_bytes()[:19] == b"\0\0\0\x0bssh-ed25519\0\0\0\x40"
