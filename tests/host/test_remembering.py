"""A file is looked into when it is another one, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.host import remembering
from pytest_kvm.host.remembering import Remembered


class Reader:
    """Counts the files that are read."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, path: Path) -> str:
        self.read += 1
        return path.read_text()


def aged(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, (1000, 1000))
    return path


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_SETTLED", 0)  # ctime cannot be set back


@pytest.mark.usefixtures("_settled")
def test_nothing_is_read_twice(tmp_path: Path) -> None:
    file = aged(tmp_path / "file", "content")
    read = Reader()
    for _ in range(2):
        assert Remembered(tmp_path / "memory").about(file, "text", read) == "content"
    assert read.read == 1
    aged(file, "CONTENT")
    assert Remembered(tmp_path / "memory").about(file, "text", read) == "CONTENT"
    assert read.read == 2


@pytest.mark.usefixtures("_settled")
def test_several_facts_about_a_file(tmp_path: Path) -> None:
    file = aged(tmp_path / "file", "content")
    remembered = Remembered(tmp_path / "memory")
    assert remembered.about(file, "text", Reader()) == "content"
    assert remembered.about(file, "size", lambda path: path.stat().st_size) == 7
    assert remembered.about(file, "text", lambda _: "never") == "content"


def test_what_was_changed_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    read = Reader()
    for _ in range(2):
        Remembered(tmp_path / "memory").about(tmp_path / "file", "text", read)
    assert read.read == 2


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("spoiled", ["", "[]", '{"identity": 1}', "\0"])
def test_a_spoiled_memory_is_no_memory(tmp_path: Path, spoiled: str) -> None:
    file = aged(tmp_path / "file", "content")
    Remembered(tmp_path / "memory").about(file, "text", Reader())
    (place,) = (tmp_path / "memory").iterdir()
    place.write_text(spoiled)
    assert Remembered(tmp_path / "memory").about(file, "text", Reader()) == "content"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Remembered(tmp_path / "memory").about(tmp_path / "none", "text", Reader())
