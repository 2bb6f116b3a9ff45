"""``pytest-kvm templates``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.cli import main
from pytest_kvm.machine.state import RAM
from pytest_kvm.machine.templates import Templates
from pytest_kvm.waiting import Deadline
from tests.machine.states import fill


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Templates:
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    return Templates(tmp_path / "cache" / "templates")


def make(store: Templates, *keys: str) -> None:
    for number, key in enumerate(keys):
        with store.making(key, Deadline(10)), store.new(key) as folder:
            fill(folder, ram=os.urandom(1 << 20))
        os.utime(store.directory / key, (86400 * number, 86400 * number))  # through the link


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], list[str]]:
    status = main(["templates", *arguments])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_none(store: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list") == (0, [f"0 templates, 0 MiB in {store.directory}"], [])
    assert run(capsys, "prune") == (0, ["0 templates, 0 MiB removed"], [])
    assert run(capsys, "remove", "--all") == (0, ["0 templates, 0 MiB removed"], [])


def test_list(store: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    make(store, "a1", "b2", "c3")
    (store.directory / "a1" / RAM).unlink()
    os.utime(store.directory / "a1", (0, 0))
    used = store.open("b2")
    assert used is not None
    status, (header, *rows, total), _ = run(capsys, "list")
    used.close()
    assert status == 0
    assert " ".join(header.split()) == "key image machine smp memory accel qemu boot size last used"
    assert [row.split()[0] for row in rows] == ["b2", "c3", "a1"]
    assert [row.split()[1:3] for row in rows[:2]] == [["tiny", "q35"]] * 2
    assert rows[0].endswith("in use")
    assert " 2.5 s " in rows[1]
    assert rows[2].endswith("damaged")
    assert total == f"3 templates, 2 MiB in {store.directory}"


def test_remove(store: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    make(store, "a1", "a2", "b1")
    assert run(capsys, "remove", "a2", "b") == (0, ["2 templates, 2 MiB removed"], [])
    used = store.open("a1")
    assert used is not None
    assert run(capsys, "remove", "--all") == (1, ["0 templates, 0 MiB removed"], ["template a1 is in use"])
    used.close()
    assert run(capsys, "remove", "--all") == (0, ["1 template, 1 MiB removed"], [])


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["a"], "2 templates begin with 'a'; 'pytest-kvm templates list' shows them"),
        (["c"], "there is no template 'c'; 'pytest-kvm templates list' shows them"),
        ([], "give keys, or --all"),
        (["a1", "--all"], "give keys, or --all"),
    ],
)
def test_remove_what(store: Templates, capsys: pytest.CaptureFixture[str], arguments: list[str], wrong: str) -> None:
    make(store, "a1", "a2")
    assert run(capsys, "remove", *arguments) == (1, [], [f"pytest-kvm: templates remove: {wrong}"])
    assert len(store.entries()) == 2


def test_prune(store: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    make(store, "a1", "a2", "b1")
    assert run(capsys, "prune")[1] == ["0 templates, 0 MiB removed"]
    assert run(capsys, "prune", "--limit", "1.5M")[1] == ["2 templates, 2 MiB removed"]
    assert [entry.key for entry in store.entries()] == ["b1"]
    assert run(capsys, "prune", "--limit=0")[1] == ["1 template, 1 MiB removed"]
    status, _, err = run(capsys, "prune", "--limit=much")
    assert status == 1
    wanted = "expected a size such as '512M' or '1.5G' (without a suffix: M), got 'much'"
    assert err == [f"pytest-kvm: templates prune --limit=much: {wanted}"]


def test_a_store_that_is_none(store: Templates, capsys: pytest.CaptureFixture[str]) -> None:
    store.directory.parent.mkdir()
    store.directory.write_text("a file")
    for arguments in (["list"], ["remove", "a"], ["prune"]):
        status, _, err = run(capsys, *arguments)
        assert (status, err) == (1, [f"pytest-kvm: [Errno 20] Not a directory: '{store.directory}'"])


def test_a_verb_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["templates"])
    assert caught.value.code == 2
    assert "VERB" in capsys.readouterr().err
