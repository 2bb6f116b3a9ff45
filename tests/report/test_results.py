"""What remains of a test: nothing, unless it fails."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.rundir import RunDir
from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.report import results as module
from pytest_kvm.report.place import MARK, Place
from pytest_kvm.report.results import Results
from tests.report.conftest import Maker


class Machine:
    """A machine as far as its results matter."""

    def __init__(self, evidence: Evidence | None, name: str = "vm") -> None:
        self.name = name
        self.known = evidence
        self.pictures = 0

    def evidence(self, *, screen: bool = False) -> Evidence | None:
        self.pictures += screen
        return self.known


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where directories for a while are made."""
    base = tmp_path / "tmp"
    base.mkdir()

    def make_run_dir() -> RunDir:
        return RunDir(Path(tempfile.mkdtemp(dir=base)), os.open(base, os.O_RDONLY))

    # Not tempfile.tempdir: other threads of this process use that, too.
    monkeypatch.setattr(module, "make_run_dir", make_run_dir)
    return base


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "results", "test_it.py::test_a")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.log"))


def test_a_test_that_passes_leaves_nothing(make: Maker, place: Place, base: Path) -> None:
    results = Results(place)
    machine = Machine(make())
    results.leave(machine)
    assert results.path is None
    assert len(list(base.iterdir())) == 1
    results.close()
    assert list(base.iterdir()) == []
    assert not place.path.parent.exists()
    assert results.troubles == []


def test_a_test_that_fails_when_its_machines_have_ended(make: Maker, place: Place, base: Path) -> None:
    results = Results(place)
    for name in ("a", "A", "b"):
        results.leave(Machine(make(name), name))
    results.keep([])
    results.close()
    assert names(place.path) == ["A-2/console.log", "a/console.log", "b/console.log"]
    assert results.path == place.path
    assert [(evidence.name, folder) for evidence, folder in results.accounts()] == [
        ("a", place.path / "a"),
        ("A", place.path / "A-2"),
        ("b", place.path / "b"),
    ]
    assert list(base.iterdir()) == []


def test_a_test_that_fails_while_they_run(make: Maker, place: Place, base: Path) -> None:
    results = Results(place)
    machine = Machine(make())
    results.keep([machine])
    assert machine.pictures == 1
    log = place.path / "vm" / "console.log"
    assert log.read_bytes().endswith(b"raw\xff\n")
    assert machine.known is not None
    machine.known.files["console.log"][0].write_text("and its end\n")
    results.leave(machine)
    assert log.read_text() == "and its end\n"
    assert machine.pictures == 1
    assert list(base.iterdir()) == []


def test_what_ends_after_the_test_is_not_its(make: Maker, place: Place, base: Path) -> None:
    results = Results(place, keep=True)
    results.close()
    results.leave(Machine(make()))
    assert results.path is None
    assert list(base.iterdir()) == []


def test_a_machine_that_never_was(place: Place, base: Path) -> None:
    results = Results(place)
    results.leave(Machine(None))
    results.keep([Machine(None)])
    assert results.path is None
    assert not place.path.exists()
    assert list(base.iterdir()) == []


def test_nowhere_to_keep_it(make: Maker, base: Path) -> None:
    results = Results(None)
    machine = Machine(make())
    results.leave(machine)
    results.keep([])
    assert [(evidence.name, folder) for evidence, folder in results.accounts()] == [("vm", None)]
    assert (results.path, results.folder(machine), results.troubles) == (None, None, [])
    assert list(base.iterdir()) == []


def test_always(make: Maker, place: Place) -> None:
    results = Results(place, keep=True)
    results.leave(Machine(make()))
    assert names(place.path) == ["vm/console.log"]
    assert results.kept


def test_a_folder_for_others(make: Maker, place: Place) -> None:
    results = Results(place)
    machine = Machine(make())
    folder = results.folder(machine)
    assert folder == place.path / "vm"
    (folder / "state").touch()
    results.keep([machine])
    results.leave(machine)
    assert (folder / "state").exists()
    assert names(place.path) == ["vm/console.log"]


def test_trouble_is_told_once(make: Maker, place: Place) -> None:
    place.path.parent.touch()
    results = Results(place)
    results.leave(Machine(make("a"), "a"))
    results.leave(Machine(make("b"), "b"))
    results.keep([])
    results.keep([])
    assert results.path is None
    assert [folder for _, folder in results.accounts()] == [None, None]
    (trouble,) = results.troubles
    assert trouble.endswith("Not a directory")
    assert str(place.path.parent) in trouble
    results.close()


def test_a_machine_that_cannot_be_put_aside(make: Maker, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> RunDir:
        raise HostError("cannot make a directory in /tmp: No space left on device")

    monkeypatch.setattr(module, "make_run_dir", refuse)
    results = Results(place)
    results.leave(Machine(make()))
    (trouble,) = results.troubles
    assert trouble == (
        "what a machine leaves cannot be put aside: cannot make a directory in /tmp: No space left on device"
    )
    results.keep([])  # of what is still there
    assert (place.path / MARK).exists()
