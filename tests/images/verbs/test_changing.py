"""Images that change: their size, their options."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import SpecError, images
from tests.images.verbs.disks import MIB, content, tree, write

FORMATS = ("raw", "qcow2")


@pytest.mark.parametrize("format_", FORMATS)
def test_resize(tmp_path: Path, format_: str) -> None:
    disk = write(images.create(tmp_path / "disk", "8M", format=format_), 7, mib=8)
    read = content(disk, format_)
    assert images.resize(disk, "+4M") == 12 * MIB
    assert images.resize(disk, 16 * MIB) == 16 * MIB
    assert images.resize(disk, "16M") == 16 * MIB
    assert content(disk, format_) == read + bytes(8 * MIB)
    before = tree(tmp_path)
    with pytest.raises(SpecError) as refusal:
        images.resize(disk, "-12M")
    assert str(refusal.value) == (
        f"images.resize({str(disk)!r}, size='-12M'): the disk has {16 * MIB} bytes, and all beyond {4 * MIB} would be "
        "lost; shrink=True does it"
    )
    assert tree(tmp_path) == before
    assert images.resize(disk, "-12M", shrink=True) == 4 * MIB
    assert content(disk, format_) == read[: 4 * MIB]
    assert images.resize(disk, "+1") == 4 * MIB + 512


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("preallocation", ["off", "falloc", "full"])
def test_preallocation(tmp_path: Path, format_: str, preallocation: str) -> None:
    disk = images.create(tmp_path / "disk", "1M", format=format_)
    images.resize(disk, "+8M", preallocation=preallocation)
    assert (images.info(disk).disk_size >= 8 * MIB) is (preallocation != "off")
    assert content(disk, format_) == bytes(9 * MIB)


def test_preallocated_metadata(tmp_path: Path) -> None:
    disk = images.create(tmp_path / "disk", "1M")
    images.resize(disk, "8M", preallocation="metadata")
    assert any(extent.data for extent in images.map(disk))
    raw = images.create(tmp_path / "raw", "1M", format="raw")
    with pytest.raises(SpecError, match="only qcow2 has metadata of what is not written, and this is raw"):
        images.resize(raw, "8M", preallocation="metadata")


def test_amend(tmp_path: Path) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7)
    read = content(disk)
    told: list[float] = []
    images.amend(disk, {"lazy_refcounts": True}, progress=told.append)
    assert images.info(disk).specific["lazy-refcounts"] is True
    assert told[-1] == 1
    images.amend(disk, {"lazy_refcounts": "off", "compat": "0.10"})
    assert images.info(disk).specific["compat"] == "0.10"
    assert content(disk) == read
    assert images.check(disk).ok
