"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.files import copy_sparse, opened, write_atomically


def test_writing_leaves_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_text() == "two"
    assert os.listdir(target.parent) == ["file"]


def test_writing_that_fails_leaves_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(target, b"one")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    "pieces",
    [[], [b"x"], [b"x", bytes(1 << 20), b"y"], [bytes(1 << 17), b"end"], [b"start", bytes(1 << 17)]],
    ids=["empty", "a byte", "a hole in the middle", "a hole first", "a hole last"],
)
def test_a_copy_is_the_same_without_zeros(tmp_path: Path, pieces: list[bytes]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"".join(pieces))
    with opened(source) as descriptor, target.open("wb") as copy:
        copy_sparse(descriptor, copy.fileno())
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 <= sum(len(piece) for piece in pieces if any(piece)) + (2 << 16)


def test_a_file_of_holes_stays_one(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1 << 30)
    with opened(source) as descriptor, target.open("wb") as copy:
        copy_sparse(descriptor, copy.fileno())
    assert (target.stat().st_size, target.stat().st_blocks) == (1 << 30, 0)


def test_a_descriptor_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with opened(tmp_path / "file") as descriptor:
        assert os.read(descriptor, 9) == b"here"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
