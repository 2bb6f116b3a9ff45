"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.files import write_atomically


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
