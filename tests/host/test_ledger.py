"""The ledger's files: what others do to them, and what is left of the dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.host.amounts import UNLIMITED, Amount, Limits
from pytest_kvm.host.ledger import Ledger, ledger_name
from pytest_kvm.host.process import Process
from pytest_kvm.host.record import Record, Scope, State

SIZES = st.integers(0, UNLIMITED)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", Limits(memory=10))


def enter(ledger: Ledger, memory: int = 1, about: str = "VM 'vm'", state: State = State.HELD) -> Record:
    record = ledger.record(Amount(memory, 1, 1), scope=Scope.TEST, state=state)
    with ledger.opened() as page:
        page.add(record, about)
    return record


def entries(ledger: Ledger) -> list[Record]:
    with ledger.opened() as page:
        return page.records


RECORDS = st.builds(
    Record,
    process=st.builds(Process, st.integers(1, 1 << 22), st.integers(0, 1 << 63)),
    run=st.just("0123abcd"),
    since=SIZES,
    amount=st.builds(Amount, SIZES, SIZES, SIZES),
    limits=st.builds(Limits, SIZES, SIZES, SIZES),
    scope=st.sampled_from(Scope),
    state=st.sampled_from(State),
)


@given(RECORDS)
def test_a_name_says_it_all(record: Record) -> None:
    assert Record.parse(record.name) == record
    assert len(record.name) <= 255


@given(st.text())
def test_other_names_are_none_of_ours(name: str) -> None:
    assert Record.parse(name) is None


def test_nobody_elses_files_are_touched(ledger: Ledger) -> None:
    record = enter(ledger)
    strange = ["README", "1.2", "1.x.y", "99999999", "a.b.c.d.e.f.g.h", f"{record.process.name}.a.b.c.d.e.f"]
    for name in strange:
        (ledger.directory / name).touch()
    assert entries(ledger) == [record]
    assert {path.name for path in ledger.directory.iterdir()} == {*strange, record.name}


def test_what_was_removed_is_there_again(ledger: Ledger) -> None:
    record = enter(ledger, about="VM 'vm' of test_it")
    shutil.rmtree(ledger.directory)
    with ledger.opened() as page:
        assert page.records == [record]
        assert page.about(record) == "VM 'vm' of test_it"


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"[1]", b'"cut o'])
def test_damaged_content_counts_as_before(ledger: Ledger, content: bytes) -> None:
    record = enter(ledger)
    (ledger.directory / record.name).write_bytes(content)
    with ledger.opened() as page:
        assert page.records == [record]
        assert page.about(record) == ""


def test_a_long_id_is_cut(ledger: Ledger) -> None:
    record = enter(ledger, about="x" * 100_000)
    with ledger.opened() as page:
        assert page.about(record) == "x" * 300


def test_what_the_dead_leave_is_removed(ledger: Ledger) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pytest_kvm.host.budget import *
budget = Budget(Path({str(ledger.directory)!r}), Limits(memory=10), report=print, give_up=print)
budget.take([Wanted("VM 'vm'", Amount(1, 1, 1))])
budget.prepare(Wanted("VM 'vm'", Amount(1, 1, 1)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert len(list(ledger.directory.iterdir())) == 3  # two shares and a bell
    assert entries(ledger) == []
    assert list(ledger.directory.iterdir()) == []


def test_a_process_id_that_is_used_again(ledger: Ledger) -> None:
    record = enter(ledger)
    other = Process(record.process.pid, record.process.started + 1)
    gone = Record(**{**vars(record), "process": other})
    (ledger.directory / gone.name).touch()
    assert entries(ledger) == [record]


def test_two_sessions_in_one_process(ledger: Ledger) -> None:
    with closing(Ledger(ledger.directory, Limits())) as other:
        records = {enter(ledger), enter(other)}
        assert set(entries(ledger)) == set(entries(other)) == records
    assert len(entries(ledger)) == 1
    ledger.close()
    assert not ledger.directory.exists()


def test_ledgers_of_long_ago(ledger: Ledger) -> None:
    old, new = ledger.directory.with_name("old"), ledger.directory.with_name("new")
    for directory in (old, new):
        directory.mkdir()
        (directory / "1.2.entry").touch()
    os.utime(old, (1000, 1000))
    ledger.close()
    assert not old.exists()
    assert new.exists()


def test_an_entry_that_cannot_be_made_is_not_there(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    record = enter(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _refuse(os.open))
        with pytest.raises(OSError, match="No space left"):
            enter(ledger)
    assert entries(ledger) == [record]


def _refuse(real: object) -> object:
    def refuse(path: object, flags: int, *rest: int, **more: int) -> object:
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        assert callable(real)
        return real(path, flags, *rest, **more)

    return refuse


def test_its_name_is_that_of_boot_and_container() -> None:
    boot, _, pids = ledger_name().rpartition("-")
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert int(pids) == os.stat("/proc/self/ns/pid").st_ino


def test_processes() -> None:
    current = Process.current()
    assert current.alive
    descriptor = current.watched()
    assert descriptor is not None
    os.close(descriptor)
    child = subprocess.Popen(["sleep", "60"])
    alive = []
    try:
        started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        process = Process(child.pid, started)
        alive.append(process.alive)
        assert Process(child.pid, started + 1).watched() is None
        watched = process.watched()
        assert watched is not None
        child.kill()
        os.waitid(os.P_PIDFD, watched, os.WEXITED | os.WNOWAIT)
        os.close(watched)
        alive.append(process.alive)  # a zombie
    finally:
        child.kill()
        child.wait()
    assert [*alive, process.alive] == [True, False, False]
    assert process.watched() is None
