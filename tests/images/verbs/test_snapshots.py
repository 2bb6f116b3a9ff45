"""Snapshots and bitmaps inside images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import SpecError, images
from tests.images.verbs.disks import content, tree, write

STRANGE = ("-one", "a, b=c", "ü\nd", "x" * 255, "id 1")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return write(images.create(tmp_path / "disk", "8M"), 7)


def test_snapshots(disk: Path) -> None:
    assert images.snapshots(disk) == ()
    read = content(disk)
    for name in STRANGE:
        images.snapshot(disk, name)
    assert tuple(each.name for each in images.snapshots(disk)) == STRANGE
    write(disk, 8)
    for name in STRANGE:
        images.apply_snapshot(disk, name)
        assert content(disk) == read
        images.delete_snapshot(disk, name)
    assert images.snapshots(disk) == ()
    assert images.check(disk).ok


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("one", r"name='one'\): there is a snapshot of this name already; images\.delete_snapshot"),
        ("", r"name=''\): expected the name of a snapshot, got ''$"),
        (1, r"name=1\): expected the name of a snapshot, got 1 \(int\)"),
        ("2", r"name='2'\): QEMU would take a number for an id; put a letter before it"),
        ("ü" * 128, r"it has 256 bytes, and the name of a snapshot has 255 at most"),
        ("\0", "has a NUL character"),
    ],
)
def test_names(disk: Path, name: str, reason: str) -> None:
    images.snapshot(disk, "one")
    before = tree(disk.parent)
    with pytest.raises(SpecError, match=reason):
        images.snapshot(disk, name)
    assert tree(disk.parent) == before


def test_snapshots_that_there_are_not(disk: Path) -> None:
    with pytest.raises(SpecError, match=r"'one'\): '.*disk' has no such snapshot; there is no snapshot at all"):
        images.apply_snapshot(disk, "one")
    images.snapshot(disk, "one")
    before = tree(disk.parent)
    for call in (images.apply_snapshot, images.delete_snapshot):
        with pytest.raises(SpecError, match=r"name='oen'\): '.*disk' has no such snapshot; did you mean 'one'\?"):
            call(disk, "oen")
    with pytest.raises(SpecError, match=r"snapshot='1'\): '.*disk' has no such snapshot; valid are one"):
        images.convert(disk, disk.with_name("copy"), snapshot="1")
    raw = images.create(disk.with_name("raw"), "8M", format="raw")
    with pytest.raises(SpecError, match=r"raw'\): a raw image has no snapshots; qcow2 has"):
        images.snapshot(raw, "one")
    with pytest.raises(SpecError, match=r"snapshot='one'\): only qcow2 has snapshots, and this is raw"):
        images.convert(raw, disk.with_name("copy"), snapshot="one")
    raw.unlink()
    assert tree(disk.parent) == before


def test_bitmaps(disk: Path) -> None:
    images.bitmap(disk, "-one, two", granularity="128k")
    images.bitmap(disk, "still", enabled=False)
    told = {each.name: (each.granularity, each.enabled, each.in_use) for each in images.bitmaps(disk)}
    assert told == {"-one, two": (128 * 1024, True, False), "still": (65536, False, False)}
    images.disable_bitmap(disk, "-one, two")
    images.enable_bitmap(disk, "still")
    assert {each.name: each.enabled for each in images.bitmaps(disk)} == {"-one, two": False, "still": True}
    images.clear_bitmap(disk, "still")
    other = images.create(disk.with_name("other"), "8M")
    images.bitmap(other, "elsewhere")
    images.merge_bitmap(disk, "still", "-one, two")
    images.merge_bitmap(disk, "still", "elsewhere", source_path=other)
    images.delete_bitmap(disk, "-one, two")
    assert [each.name for each in images.bitmaps(disk)] == ["still"]


def test_bitmaps_that_cannot_be(disk: Path) -> None:
    images.bitmap(disk, "one")
    raw = images.create(disk.with_name("raw"), "8M", format="raw")
    before = tree(disk.parent)
    with pytest.raises(SpecError, match=r"granularity='100k'\): it has to be a power of two from 512 bytes to 2 GiB"):
        images.bitmap(disk, "two", granularity="100k")
    with pytest.raises(SpecError, match="there is a bitmap of this name already"):
        images.bitmap(disk, "one")
    with pytest.raises(SpecError, match=r"name='two'\): '.*disk' has no such bitmap; valid are one"):
        images.clear_bitmap(disk, "two")
    with pytest.raises(SpecError, match=r"source='two'\): '.*disk' has no such bitmap"):
        images.merge_bitmap(disk, "one", "two")
    with pytest.raises(SpecError, match="a raw image has no bitmaps; qcow2 has"):
        images.bitmap(raw, "one")
    assert tree(disk.parent) == before
