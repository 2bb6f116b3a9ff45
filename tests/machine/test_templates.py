"""The store of templates: what is there is whole, what is used stays, what is left over goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm.machine.state import RAM
from pytest_kvm.machine.templates import Busy, Impossible, OpenTemplate, Templates
from pytest_kvm.waiting import Deadline
from tests.machine.states import GUEST, fill

KIB = 1024
KILLED = """
import os, sys
from pathlib import Path
from pytest_kvm.machine.templates import Templates
from pytest_kvm.waiting import Deadline
from tests.machine.states import fill
store = Templates(Path(sys.argv[1]))
with store.making("a", Deadline(10)), store.new("a") as folder:
    fill(folder)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def store(tmp_path: Path) -> Templates:
    return Templates(tmp_path / "templates")


def make(store: Templates, key: str, *, size: int = KIB, used: float | None = None) -> Path:
    with store.making(key, Deadline(10)), store.new(key) as folder:
        fill(folder, ram=os.urandom(size))
    path = store.directory / os.readlink(store.directory / key)
    if used is not None:
        os.utime(path, (used, used))
    return path


def opened(store: Templates, key: str) -> OpenTemplate:
    template = store.open(key)
    assert template is not None
    return template


def names(store: Templates) -> set[str]:
    """Return the keys of what is there; a folder that no link leads to is left over."""
    entries = [path for path in store.directory.iterdir() if not path.name.startswith(".")]
    linked = {os.readlink(path) for path in entries if path.is_symlink()}
    folders = {path.name for path in entries if not path.is_symlink()}
    return {path.name for path in entries if path.is_symlink()} | {f"left over: {n[:1]}" for n in folders - linked}


def test_nothing_is_there_at_first(store: Templates) -> None:
    assert store.open("a") is None
    assert store.entries() == []
    assert store.prune(0) == []
    assert store.remove("a")
    assert not store.directory.exists()


def test_made_and_opened(store: Templates) -> None:
    path = make(store, "a")
    template = opened(store, "a")
    assert template.state.guest == GUEST
    assert template.state.path == path
    template.close()
    template.close()
    assert names(store) == {"a"}
    assert (store.directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o700)


def test_one_that_was_not_finished_is_not_there(store: Templates) -> None:
    def fail() -> None:
        with store.making("a", Deadline(10)), store.new("a") as folder:
            fill(folder)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    assert store.open("a") is None
    assert names(store) == set()


def test_sweeping(store: Templates) -> None:
    assert store.sweep() == []
    make(store, "a")
    replaced = make(store, "b")
    used = opened(store, "b")
    make(store, "b")
    subprocess.run([sys.executable, "-c", KILLED, str(store.directory)], check=False)
    (left,) = store.sweep(dry_run=True)
    assert left.path.name.startswith("a.")
    assert names(store) == {"a", "b", "left over: a", "left over: b"}
    assert store.sweep() == [left]
    assert names(store) == {"a", "b", "left over: b"}
    used.close()
    assert [removed.path for removed in store.sweep()] == [replaced]
    assert names(store) == {"a", "b"}


def test_what_a_killed_process_left_is_removed(store: Templates) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(store.directory)], check=False, timeout=60)
    assert names(store) == {"left over: a"}
    assert store.open("a") is None
    make(store, "a")  # the lock is free
    store.prune(1 << 30)
    assert names(store) == {"a"}


def test_one_in_the_making_is_not_removed(store: Templates) -> None:
    with store.making("a", Deadline(10)), store.new("a") as folder:
        store.prune(0)
        fill(folder)
    assert names(store) == {"a"}


def test_used_ones_stay(store: Templates) -> None:
    make(store, "a")
    template = opened(store, "a")
    other = Templates(store.directory)
    assert not other.remove("a")
    assert other.prune(0) == []
    assert [entry.held for entry in other.entries()] == [True]
    template.close()
    assert [entry.held for entry in other.entries()] == [False]
    assert other.remove("a")
    assert names(store) == set()


def test_those_used_longest_ago_go_first(store: Templates) -> None:
    for number, key in enumerate("abcd"):
        make(store, key, size=100 * KIB, used=1000 + number)
    opened(store, "a").close()  # which makes it the youngest
    entries = store.entries()
    assert [entry.key for entry in entries] == ["a", "d", "c", "b"]
    assert all(entry.size >= 100 * KIB for entry in entries)
    removed = store.prune(sum(entry.size for entry in entries[:2]))
    assert [entry.key for entry in removed] == ["c", "b"]
    assert names(store) == {"a", "d"}


def damage(path: Path) -> None:
    (path / RAM).chmod(0o600)
    (path / RAM).write_bytes(b"")


def test_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    store = Templates(tmp_path, report=said.append)
    path = make(store, "a")
    damage(path)
    assert [entry.state for entry in store.entries()] == [None]
    assert store.open("a") is None
    assert said == [f"a template is made again: {path / RAM} has been changed"]
    assert names(store) == set()
    make(store, "a")
    assert opened(store, "a").state.guest == GUEST


def test_a_damaged_one_is_pruned_whatever_room_there_is(store: Templates) -> None:
    damage(make(store, "a"))
    make(store, "b")
    assert [entry.key for entry in store.prune(1 << 30)] == ["a"]


def test_one_that_is_no_good_goes_though_it_is_used(store: Templates) -> None:
    make(store, "a")
    other = opened(Templates(store.directory), "a")
    store.condemn(opened(store, "a"))
    assert store.open("a") is None
    other.state.check()
    make(store, "a")
    again = opened(store, "a")
    assert again.state.path != other.state.path
    assert names(store) == {"a", "left over: a"}
    Templates(store.directory).condemn(other)  # it means the old one
    store.prune(1 << 30)
    assert names(store) == {"a"}
    assert store.open("a") is not None
    again.close()


def test_it_stays_as_long_as_one_duplicate_is_open(store: Templates) -> None:
    make(store, "a")
    template = opened(store, "a")
    copy = template.duplicate()
    template.close()
    with pytest.raises(ValueError, match="closed"):
        template.duplicate()
    assert not store.remove("a")
    copy.close()
    assert store.remove("a")


def test_one_process_makes_it_while_others_wait(store: Templates) -> None:
    said: list[str] = []
    waiter = Templates(store.directory, report=said.append)
    found: list[OpenTemplate | None] = []

    def wait() -> None:
        with waiter.making("a", Deadline(60)):
            found.append(waiter.open("a"))

    thread = threading.Thread(target=wait)
    with store.making("a", Deadline(10)):
        thread.start()
        impatient = Templates(store.directory).making("a", Deadline(0.01))
        with pytest.raises(Busy, match=r"another process has been making its template for 0\.01 s"):
            impatient.__enter__()
        with store.new("a") as folder:
            fill(folder)
    thread.join()
    assert found[0] is not None
    assert set(said) <= {"waiting for another process that boots the same machine for a template"}
    found[0].close()


def test_other_keys_do_not_wait(store: Templates) -> None:
    with store.making("a", Deadline(10)), store.making("b", Deadline(0)):
        pass


@pytest.mark.parametrize("spoil", [lambda path: path.write_text(""), lambda path: path.symlink_to("/proc/1/nothing")])
def test_a_directory_that_cannot_be(store: Templates, spoil: Callable[[Path], object]) -> None:
    spoil(store.directory)
    with pytest.raises(Impossible, match=f"no template can be kept in {store.directory}: "):
        store.making("a", Deadline(10)).__enter__()
    assert store.open("a") is None
