"""What a file is, by its first bytes."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import pytest

from pytest_kvm.images.formats import NotADisk, detect_format, look, partitions_end, read_qcow2
from tests.images.disks import make_qcow2, qemu_img


@pytest.mark.parametrize("content", [b"\x55\xaa" * 256, b"\0" * 600, b"QF", b"Q"])
def test_raw(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "disk").write_bytes(content)
    assert look(tmp_path / "disk") == detect_format(tmp_path / "disk") == "raw"


@pytest.mark.parametrize("format_", ["vmdk", "vdi", "vhdx", "qed", "vpc", "parallels"])
def test_other_formats_have_to_be_named(tmp_path: Path, format_: str) -> None:
    qemu_img("create", "-q", "-f", format_, tmp_path / "disk", "8M")
    with pytest.raises(NotADisk, match=f"^it looks like {format_}; say so if it is: format='{format_}'"):
        look(tmp_path / "disk")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"\x1f\x8b\x08", "it is compressed with gzip; unpack it first: gunzip"),
        (b"\xfd7zXZ\0", "it is compressed with xz; unpack it first: unxz"),
        (b"(\xb5/\xfd", "it is compressed with zstd; unpack it first: unzstd"),
        (b"BZh9", "it is compressed with bzip2; unpack it first: bunzip2"),
        (b"PK\x03\x04", "it is a zip archive; unpack it first: unzip"),
        (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive; unpack it first"),
        (b"\n<!DOCTYPE html>", "it is a web page, as servers send in place of a file that they do not have"),
        (b"<html>", "it is a web page, as servers send in place of a file that they do not have"),
    ],
)
def test_no_disks(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(NotADisk) as caught:
        look(tmp_path / "disk")
    assert str(caught.value) == what


def test_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "disk", "w") as archive:
        archive.add(__file__, "file")
    with pytest.raises(NotADisk, match="it is a tar archive"):
        look(tmp_path / "disk")


def test_qcow2(tmp_path: Path) -> None:
    plain = make_qcow2(tmp_path / "plain")
    assert look(plain) == detect_format(plain) == "qcow2"
    header = read_qcow2(plain)
    assert (header.backing, header.data, header.encrypted, header.corrupt) == (None, None, False, False)
    old = make_qcow2(tmp_path / "old", "-o", "compat=0.10")
    assert read_qcow2(old).backing is None


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_backing_file(tmp_path: Path, compat: str) -> None:
    make_qcow2(tmp_path / "base")
    overlay = make_qcow2(tmp_path / "overlay", "-o", f"compat={compat}", "-F", "qcow2", "-b", "base")
    header = read_qcow2(overlay)
    assert (header.backing, header.backing_format) == ("base", "qcow2")


def test_data_file(tmp_path: Path) -> None:
    image = make_qcow2(tmp_path / "image", "-o", f"data_file={tmp_path}/data", data=0)
    assert read_qcow2(image).data == f"{tmp_path}/data"


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3", b"QFI\xfb" + b"\xff" * 200, b"QFI\xfb" * 99])
def test_damaged_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(NotADisk, match=r"it is no qcow2 image, or not all of it|its qcow2 header is damaged"):
        read_qcow2(tmp_path / "disk")


def table(*entries: tuple[int, int, int, int], behind: bytes = b"") -> bytes:
    rows = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries)
    return bytes(446) + rows.ljust(64, b"\0") + b"\x55\xaa" + behind


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"", 0),
        (bytes(1024), 0),
        (table(), 0),
        (table((0x80, 0x83, 2048, 2048)), 4096 * 512),
        (table((0x80, 0x83, 2048, 2048), (0, 0x82, 9000, 1000)), 10000 * 512),
        (table((0x12, 0x83, 2048, 2048)), 0),
        (table((0, 0xEE, 1, 0xFFFFFFFF)), 0),
        (table((0, 0xEE, 1, 0xFFFFFFFF), behind=b"EFI PART"), 512),
        (table((0, 0xEE, 1, 0xFFFFFFFF), behind=b"EFI PART".ljust(32, b"\0") + struct.pack("<Q", 4095)), 4096 * 512),
    ],
)
def test_partitions(tmp_path: Path, content: bytes, end: int) -> None:
    (tmp_path / "disk").write_bytes(content.ljust(1024, b"\0") if content else b"")
    assert partitions_end(tmp_path / "disk") == end
