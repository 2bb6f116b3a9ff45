"""The folder of a test: made when it is needed, and of one run only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_kvm.report.place import MARK, Place, remove_empty


def test_a_folder_is_made_when_it_is_claimed(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "results"
    place = Place(directory, "test_it.py::test_a")
    place.clear()
    assert not directory.exists()
    place.claim()
    (place.path / "kept").touch()
    place.claim()
    assert sorted(path.name for path in place.path.iterdir()) == ["kept", MARK]
    assert list(directory.iterdir()) == [place.path]
    assert json.loads((place.path / MARK).read_text())["test"] == "test_it.py::test_a"


def test_another_run_takes_the_place(tmp_path: Path) -> None:
    first, second = (Place(tmp_path, "test_it.py::test_a") for _ in range(2))
    first.claim()
    (first.path / "old").touch()
    second.claim()
    assert [path.name for path in second.path.iterdir()] == [MARK]
    second.clear()  # its own
    assert second.path.exists()
    Place(tmp_path, "test_it.py::test_a").clear()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    place = Place(tmp_path, "test_it.py::test_a")
    place.path.mkdir()
    place.claim()
    assert (place.path / MARK).exists()


@pytest.mark.parametrize("mark", [None, "", "[]", "{}", '{"test": "test_it.py::test_b", "run": "1"}'])
def test_what_is_not_ours_stays(tmp_path: Path, mark: str | None) -> None:
    place = Place(tmp_path, "test_it.py::test_a")
    place.path.mkdir()
    (place.path / "thesis.tex").touch()
    if mark is not None:
        (place.path / MARK).write_text(mark)
    for do in (place.clear, place.claim):
        with pytest.raises(FileExistsError, match="is not of an earlier run of this test"):
            do()
    assert (place.path / "thesis.tex").exists()


def test_a_link_is_not_ours(tmp_path: Path) -> None:
    elsewhere = Place(tmp_path / "elsewhere", "test_it.py::test_a")
    elsewhere.claim()
    place = Place(tmp_path, "test_it.py::test_a")
    place.path.symlink_to(elsewhere.path)
    with pytest.raises(FileExistsError):
        place.clear()
    assert (elsewhere.path / MARK).exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    place = Place(tmp_path / "results", "test_it.py::test_a")
    place.clear()
    with pytest.raises(OSError, match="Not a directory"):
        place.claim()


def test_somebody_else_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, other = (Place(tmp_path, "test_it.py::test_a") for _ in range(2))
    clear = Place.clear

    def late(self: Place) -> None:
        clear(self)
        if self is place and not other.path.exists():
            monkeypatch.setattr(Place, "clear", clear)
            other.claim()

    monkeypatch.setattr(Place, "clear", late)
    place.claim()
    assert list(tmp_path.iterdir()) == [place.path]


def test_only_an_empty_directory_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "results"
    remove_empty(directory)
    directory.mkdir()
    (directory / "x").touch()
    remove_empty(directory)
    (directory / "x").unlink()
    remove_empty(directory)
    assert not directory.exists()
