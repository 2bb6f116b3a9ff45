"""Images are made, of nothing and of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm import SpecError, images
from tests.images.verbs.disks import MIB, content, tree, write

FORMATS = ("raw", "qcow2")


@pytest.mark.parametrize("format_", ["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels"])
def test_every_format(tmp_path: Path, format_: str) -> None:
    disk = images.create(tmp_path / "disk", "8M", format=format_)
    assert disk == tmp_path / "disk"
    told = images.info(disk, format=format_)
    assert told.format == format_
    assert told.virtual_size >= 8 * MIB  # vpc counts in cylinders
    assert os.listdir(tmp_path) == ["disk"]
    assert oct(disk.stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("size", "meant"), [(1 << 20, MIB), ("1M", MIB), ("1.5M", 3 * MIB // 2), ("0.001G", 1073741)])
def test_sizes(tmp_path: Path, size: int | str, meant: int) -> None:
    disk = images.create(tmp_path / "disk", size, format="raw")
    assert disk.stat().st_size == -(-meant // 512) * 512


def test_options(tmp_path: Path) -> None:
    options = {"cluster_size": "128k", "lazy_refcounts": True, "compat": "1.1", "refcount_bits": 8}
    told = images.info(images.create(tmp_path / "disk", "8M", options={**options, "preallocation": "metadata"}))
    assert told.cluster_size == 128 * 1024
    assert told.specific["lazy-refcounts"] is True
    assert told.specific["refcount-bits"] == 8
    assert all(extent.data for extent in images.map(tmp_path / "disk"))
    old = images.create(tmp_path / "old", "8M", options={"compat": "0.10"})
    assert images.info(old).specific["compat"] == "0.10"
    full = images.create(tmp_path / "full", "8M", format="raw", options={"preallocation": "full"})
    assert images.info(full).disk_size >= 8 * MIB


def test_an_overlay(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M", format="raw"), 7)
    over = images.create(tmp_path / "over", backing=base, backing_format="raw")
    told = images.info(over)
    assert (told.virtual_size, told.backing_file, told.backing_format) == (8 * MIB, base, "raw")
    assert told.backing_name == str(base)
    assert content(over) == content(base, "raw")
    larger = images.create(tmp_path / "larger", "16M", backing=base, backing_format="raw")
    assert images.info(larger).virtual_size == 16 * MIB


def test_a_relative_backing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "both" / "bases").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    base = write(images.create("both/bases/base", "8M"), 7)
    arguments = {"backing": "both/bases/base", "backing_format": "qcow2"}
    over = images.create("both/over", None, **arguments, relative_backing=True)  # type: ignore[arg-type]
    assert images.info(over).backing_name == "bases/base"
    read = content(base)
    (tmp_path / "both").rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert images.info(moved / "over", chain=True).chain[0].path == moved / "bases" / "base"
    assert content(moved / "over") == read


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_text("mine")
    with pytest.raises(SpecError) as refusal:
        images.create(disk, "8M")
    assert str(refusal.value) == (
        f"images.create({str(disk)!r}): there is a file already, and it is kept; overwrite=True replaces it"
    )
    assert disk.read_text() == "mine"
    images.create(disk, "8M", overwrite=True)
    assert images.info(disk).virtual_size == 8 * MIB
    assert os.listdir(tmp_path) == ["disk"]


def test_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/disk")
    images.create(tmp_path / "link", "8M")
    images.create(tmp_path / "link", "9M", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert images.info(tmp_path / "folder" / "disk").virtual_size == 9 * MIB
    assert os.listdir(tmp_path / "folder") == ["disk"]


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_convert(tmp_path: Path, source: str, target: str) -> None:
    disk = write(images.create(tmp_path / "disk", "8M", format=source), 7, at=2, mib=3)
    before = tree(tmp_path)
    copy = images.convert(disk, tmp_path / "copy", format=target)
    assert copy == tmp_path / "copy"
    assert content(copy, target) == content(disk, source)
    assert tree(tmp_path) == {**before, "copy": tree(tmp_path)["copy"]}
    assert images.info(copy).disk_size < 5 * MIB


def test_a_vmdk_does_not_tell_where_it_was_made(tmp_path: Path) -> None:
    disk = images.convert(images.create(tmp_path / "disk", "8M"), tmp_path / "copy.vmdk", format="vmdk")
    assert b'"copy.vmdk"' in disk.read_bytes()


def test_convert_with_all_that_there_is(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7, mib=4)
    images.snapshot(disk, "before, with a comma")
    images.bitmap(disk, "changed")
    write(disk, 8, mib=4)
    packed = images.convert(disk, tmp_path / "packed", compress=True, options={"compression_type": "zstd"})
    assert images.check(packed).compressed_clusters == 64
    before = images.convert(disk, tmp_path / "before", snapshot="before, with a comma", format="raw")
    assert set(before.read_bytes()[: 4 * MIB]) == {7}
    full = images.convert(disk, tmp_path / "full", format="raw", sparse=0)
    assert images.info(full).disk_size >= 8 * MIB
    marked = images.convert(disk, tmp_path / "marked", bitmaps=True)
    assert [each.name for each in images.bitmaps(marked)] == ["changed"]
    assert images.convert(disk, tmp_path / "full", overwrite=True, salvage=True) == full
    assert images.info(full).format == "qcow2"


def test_convert_to_an_overlay(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M"), 7, mib=4)
    over = write(images.create(tmp_path / "over", backing=base, backing_format="qcow2"), 8, at=1)
    copy = images.convert(over, tmp_path / "copy", backing=base, backing_format="qcow2", relative_backing=True)
    assert images.info(copy).backing_name == "base"
    assert content(copy) == content(over)
    assert [extent.depth for extent in images.map(copy)][:3] == [1, 0, 1]


def test_progress(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "64M"), 7, mib=32)
    told: list[float] = []
    images.convert(disk, tmp_path / "copy", progress=told.append)
    assert told == sorted(set(told))
    assert told[0] == 0
    assert told[-1] == 1
    assert len(told) > 3
