"""Overlays are joined with what is below them, and put on other images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import SpecError, images
from tests.images.verbs.disks import MIB, content, tree, write

FORMATS = ("raw", "qcow2")


def overlay(path: Path, backing: Path, format_: str = "qcow2") -> Path:
    return images.create(path, backing=backing, backing_format=format_)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("empty", [True, False])
def test_commit(tmp_path: Path, format_: str, empty: bool) -> None:
    base = write(images.create(tmp_path / "base", "8M", format=format_), 7, mib=4)
    over = write(overlay(tmp_path / "over", base, format_), 8, at=2, mib=4)
    read = content(over)
    told: list[float] = []
    assert images.commit(over, empty=empty, progress=told.append) == base
    assert told[-1] == 1
    assert content(base, format_) == content(over) == read
    assert any(extent.depth == 0 and extent.data for extent in images.map(over)) is not empty


def test_commit_further_down(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M"), 6)
    (tmp_path / "sub").mkdir()
    middle = images.create(tmp_path / "sub" / "m", backing=base, backing_format="qcow2", relative_backing=True)
    top = write(overlay(tmp_path / "top", write(middle, 7, at=1)), 8, at=2)
    read = content(top)
    assert images.commit(top, base=tmp_path / "sub" / ".." / "base", format="qcow2").samefile(base)
    assert content(base) == read
    with pytest.raises(SpecError, match=r"is no overlay on that; it is on '.*sub/m' or '.*base'"):
        images.commit(top, base=write(images.create(tmp_path / "other", "8M"), 1), format="qcow2")


def test_commit_of_another_format(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M"), 7)
    over = images.create(tmp_path / "over", format="qed", backing=base, backing_format="qcow2")
    assert images.commit(over, format="qed") == base


def test_rebase(tmp_path: Path) -> None:
    old = write(images.create(tmp_path / "old", "8M"), 7, mib=4)
    new = write(images.create(tmp_path / "new", "8M", format="raw"), 9, mib=4)
    over = write(overlay(tmp_path / "over", old), 8, at=1)
    read, before = content(over), tree(tmp_path)
    told: list[float] = []
    images.rebase(over, new, backing_format="raw", relative_backing=True, progress=told.append)
    assert told[-1] == 1
    info = images.info(over)
    assert (info.backing_name, info.backing_file, info.backing_format) == ("new", new, "raw")
    assert content(over) == read
    images.rebase(over, None)
    assert images.info(over).backing_file is None
    assert content(over) == read
    assert {name: sum_ for name, sum_ in tree(tmp_path).items() if name != "over"} == {
        name: sum_ for name, sum_ in before.items() if name != "over"
    }


def test_rebase_after_a_move(tmp_path: Path) -> None:
    base = write(images.create(tmp_path / "base", "8M"), 7)
    over = overlay(tmp_path / "over", base)
    read = content(over)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(SpecError, match=r"the backing file '.*base': there is no such file; images\.rebase"):
        images.rebase(over, moved, backing_format="qcow2")
    images.rebase(over, moved, backing_format="qcow2", unsafe=True)
    assert content(over) == read


def test_a_loop(tmp_path: Path) -> None:
    base = images.create(tmp_path / "base", "8M")
    over = overlay(tmp_path / "over", base)
    before = tree(tmp_path)
    for unsafe in (True, False):
        with pytest.raises(SpecError) as refusal:
            images.rebase(base, over, backing_format="qcow2", unsafe=unsafe)
        assert str(refusal.value) == (
            f"images.rebase({str(base)!r}): it would be an overlay on itself: {str(base)!r} on {str(over)!r} "
            f"on {str(base)!r}"
        )
    with pytest.raises(SpecError, match="would be written, and is read meanwhile"):
        images.create(base, backing=over, backing_format="qcow2", overwrite=True)
    with pytest.raises(SpecError, match="would be written, and is read meanwhile"):
        images.convert(over, base, overwrite=True)
    assert tree(tmp_path) == before
    assert images.info(over).virtual_size == 8 * MIB
