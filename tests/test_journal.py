"""Journals: one record a line, bounded, and in nobody's way."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from pathlib import Path

from pytest_kvm.journal import Journal


def read(*paths: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in paths if path.exists() for line in path.read_bytes().splitlines()]


def test_a_record_is_a_line_with_the_hosts_time(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "qmp.jsonl")) as journal:
        assert not journal.path.exists()
        before = datetime.datetime.now().astimezone()
        journal.add({"command": "printf '1\n2\u2028'", "status": 0})
        journal.add({"path": tmp_path, "broken": "\udcff", "odd": {("a", "b"): 1}})
    first, second = read(journal.path)
    assert before <= datetime.datetime.fromisoformat(str(first.pop("time"))) <= datetime.datetime.now().astimezone()
    assert first == {"command": "printf '1\n2\u2028'", "status": 0}
    assert second["odd"] == "{('a', 'b'): 1}"
    assert journal.count == 2
    assert [record.get("status") for record in journal.last()] == [0, None]


def test_a_flood_leaves_its_end(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "qmp.jsonl", limit=20_000)) as journal:
        for number in range(5000):
            journal.add({"number": number})
    kept = read(journal.older, journal.path)
    assert journal.path.stat().st_size + journal.older.stat().st_size <= 20_000
    assert [record["number"] for record in kept] == list(range(5000 - len(kept), 5000))
    assert len(kept) > 100
    assert [record["number"] for record in journal.last(2)] == [4998, 4999]
    assert journal.last(0) == []


def test_a_long_record_is_cut(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "commands.jsonl")) as journal:
        journal.add({"command": "x" * 1_000_000, "status": 3, "answer": [{"name": "y" * 100}] * 10_000})
    (record,) = read(journal.path)
    assert str(record["command"]) == "x" * 1024 + "… (1000000 characters)"
    assert str(record["answer"]).startswith('[{"name": "yyy')
    assert record["status"] == 3
    assert journal.path.stat().st_size < 10_000


def test_what_cannot_be_written_is_noted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone" / "qmp.jsonl")
    journal.add({"number": 1})
    assert journal.trouble == "qmp.jsonl: No such file or directory"
    assert [record["number"] for record in journal.last()] == [1]
    with contextlib.closing(Journal(Path("/dev/full"))) as full:
        full.add({"number": 1})
    assert full.trouble == "full: No space left on device"


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "commands.jsonl", limit=1 << 20)) as journal:

        def write() -> None:
            for _ in range(200):
                journal.add({"text": "z" * 100})

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    journal.add({"text": "too late"})
    assert len(read(journal.older, journal.path)) == 800
