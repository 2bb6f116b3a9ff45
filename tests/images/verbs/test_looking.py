"""What images say about themselves."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_kvm import QemuImgError, SpecError, images
from tests.images.verbs.disks import MIB, tree, write

FORMATS = ("raw", "qcow2")


def test_info(tmp_path: Path) -> None:
    base = images.create(tmp_path / "base", "8M", options={"cluster_size": "128k"})
    middle = images.create(tmp_path / "middle", backing=base, backing_format="qcow2", relative_backing=True)
    top = images.create(tmp_path / "top", "9M", backing=middle, backing_format="qcow2")
    told = images.info(top, chain=True)
    assert [(each.path, each.virtual_size) for each in (told, *told.chain)] == [
        (top, 9 * MIB),
        (middle, 8 * MIB),
        (base, 8 * MIB),
    ]
    assert told.chain[0].backing_name == "base"
    assert told.chain[0].backing_file == base
    assert told.chain[1].cluster_size == 128 * 1024
    assert told.chain[1].backing_file is None
    assert images.info(top).chain == ()
    assert (told.dirty, told.corrupt, told.encrypted) == (False, False, False)
    base.unlink()
    assert images.info(middle).backing_file == base
    with pytest.raises(SpecError, match=r"the backing file '.*base': there is no such file; images\.rebase"):
        images.info(middle, chain=True)


def test_info_of_a_raw_one(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "8M", format="raw"), 7)
    told = images.info(disk)
    assert (told.format, told.virtual_size, told.cluster_size) == ("raw", 8 * MIB, None)
    assert MIB <= told.disk_size < 2 * MIB
    assert (told.backing_file, told.snapshots, told.bitmaps, told.dirty) == (None, (), (), False)


def test_info_of_marked_ones(tmp_path: Path) -> None:
    disk = images.create(tmp_path / "disk", "8M", options={"lazy_refcounts": True})
    with disk.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 0b01))  # QCOW2_INCOMPAT_DIRTY
    assert images.info(disk).dirty
    with disk.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 0b10))
    told = images.info(disk)
    assert (told.dirty, told.corrupt) == (False, True)


def test_info_of_snapshots(tmp_path: Path) -> None:
    disk = images.create(tmp_path / "disk", "8M")
    images.snapshot(disk, "one")
    (told,) = images.info(disk).snapshots
    assert (told.id, told.name, told.vm_state_size, told.vm_clock) == ("1", "one", 0, 0)
    assert timedelta() <= datetime.now(UTC) - told.date < timedelta(minutes=10)


def test_check(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7)
    before = tree(tmp_path)
    result = images.check(disk)
    assert result.ok
    assert (result.errors, result.corruptions, result.leaks, result.repaired) == (0, 0, 0, 0)
    assert (result.total_clusters, result.allocated_clusters) == (128, 16)
    assert result.end_offset == disk.stat().st_size
    assert result.problems == ()
    assert tree(tmp_path) == before


def leaking(disk: Path) -> None:
    """Append a cluster that is counted, and that nobody refers to."""
    with disk.open("r+b") as file:
        (table,) = struct.unpack_from(">Q", file.read(104), 48)
        file.seek(table)
        (block,) = struct.unpack(">Q", file.read(8))
        end = -(-disk.stat().st_size // 65536)
        file.seek(block + 2 * end)
        file.write(struct.pack(">H", 1))
        file.truncate((end + 1) * 65536)


@pytest.mark.parametrize("repair", ["leaks", "all"])
def test_a_leak(tmp_path: Path, repair: str) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7)
    leaking(disk)
    before = tree(tmp_path)
    result = images.check(disk)
    assert (result.ok, result.leaks, result.corruptions) == (False, 1, 0)
    assert result.problems[0].startswith("Leaked cluster")
    assert tree(tmp_path) == before
    result = images.check(disk, repair=repair)
    assert (result.ok, result.leaks, result.repaired) == (True, 0, 1)
    assert images.check(disk).ok


def test_corruption(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7)
    with disk.open("r+b") as file:
        (table,) = struct.unpack_from(">Q", file.read(104), 48)
        file.seek(table)
        (block,) = struct.unpack(">Q", file.read(8))
        file.seek(block + 2 * 5)
        file.write(struct.pack(">H", 0))  # a cluster that is used, and not counted
    result = images.check(disk)
    assert (result.ok, result.corruptions > 0, result.repaired) == (False, True, 0)
    with pytest.raises(QemuImgError, match=r"Check failed: .*; images\.check\(…, repair='all'\) tries to mend it$"):
        images.check(disk, repair="leaks")
    result = images.check(disk, repair="all")
    assert (result.ok, result.repaired > 0) == (True, True)
    assert images.check(disk).ok


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    disk = images.create(tmp_path / "disk", "8M", format="raw")
    with pytest.raises(SpecError, match=r"a raw image has no structure of its own that could be checked; qcow2 has"):
        images.check(disk)
    disk = images.create(tmp_path / "vpc", "8M", format="vpc")
    with pytest.raises(SpecError, match=r"vpc'\): qemu-img cannot check vpc images"):
        images.check(disk, format="vpc")


@pytest.mark.parametrize("one", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_compare(tmp_path: Path, one: str, other: str) -> None:
    disk = write(images.create(tmp_path / "disk", "8M", format=one), 7)
    same = write(images.create(tmp_path / "same", "8M", format=other), 7)
    assert images.compare(disk, same)
    write(same, 8, at=2)
    result = images.compare(disk, same)
    assert not result
    assert result.offset == 2 * MIB
    assert result.reason == f"Content mismatch at offset {2 * MIB}"


def test_compare_strictly(tmp_path: Path) -> None:
    disk = images.create(tmp_path / "disk", "8M")
    longer = images.create(tmp_path / "longer", "9M")
    told: list[float] = []
    assert images.compare(disk, longer, progress=told.append)
    assert told[-1] == 1
    result = images.compare(disk, longer, strict=True)
    assert (result.identical, result.offset) == (False, None)
    assert result.reason == "Strict mode: Image size mismatch"


def test_map(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M", format="raw"), 7, at=1)
    over = write(images.create(tmp_path / "over", backing=base, backing_format="raw"), 8, at=2)
    extents = images.map(over)
    assert sum(extent.length for extent in extents) == 8 * MIB
    below, own = (next(each for each in extents if each.start == start) for start in (MIB, 2 * MIB))
    assert (below.depth, below.data, own.depth, own.data) == (1, True, 0, True)
    assert (below.start, below.length, below.offset) == (MIB, MIB, MIB)
    assert (own.start, own.length, own.present, own.zero) == (2 * MIB, MIB, True, False)
    assert own.offset is not None
    assert over.read_bytes()[own.offset : own.offset + 2] == b"\x08\x08"
    (part,) = images.map(over, start=MIB, length=4096)
    assert (part.start, part.length, part.depth) == (MIB, 4096, 1)


def test_measure(tmp_path: Path) -> None:
    empty = images.measure(size="1G")
    assert empty.required < MIB < 1 << 30 < empty.fully_allocated
    assert images.measure(size="1G", format="raw").required == 1 << 30
    disk = write(images.create(tmp_path / "disk", "8M"), 7, mib=2)
    images.snapshot(disk, "small")
    write(disk, 7, mib=4)
    large, small = images.measure(disk), images.measure(disk, snapshot="small")
    assert large.required - small.required == 2 * MIB
    assert images.measure(disk, options={"preallocation": "full"}).required == large.fully_allocated
    copy = images.convert(disk, tmp_path / "copy")
    assert copy.stat().st_size <= large.required
