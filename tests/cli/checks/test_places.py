"""Room on disks and in memory, and what takes it."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from pytest_kvm.host.amounts import Amount, default_limits
from pytest_kvm.host.budget import Budget
from pytest_kvm.host.ledger import ledger_name
from pytest_kvm.host.request import Holder, Wanted
from pytest_kvm.machine.templates import Templates
from pytest_kvm.waiting import Deadline
from tests.cli.hosts import Host


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_place_without_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_qemu()
    monkeypatch.setattr("pytest_kvm.cli.checks.storage.shutil.disk_usage", lambda _: Usage(64 << 20, 0, 5 << 20))
    row = host.rows()["cache"]
    assert row["state"] == "note"
    assert "5 MiB free of 64 MiB: a machine's template and disks take some 300 MiB" in row["text"]
    assert row["fix"] == "set PYTEST_KVM_CACHE to a directory with room"


def test_a_place_that_cannot_be_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_qemu()
    access = os.access
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(host.root / "others"))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(host.root / "others") and access(path, mode))
    status, out, _ = host.doctor()
    assert status == 1
    assert out[-1] == "No machine can run here: cache is broken."


def test_a_tmpfs_takes_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_qemu()
    monkeypatch.setattr("pytest_kvm.cli.checks.storage.filesystem", lambda _: "tmpfs")
    row = host.rows()["TMPDIR"]
    assert row["text"].endswith(" (tmpfs: what is in it takes memory)")
    assert row["data"]["filesystem"] == "tmpfs"


def test_little_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_qemu()
    monkeypatch.setattr("pytest_kvm.cli.checks.memory.available", lambda: 100 << 20)
    monkeypatch.setattr("pytest_kvm.cli.checks.memory.total", lambda: 1 << 30)
    row = host.rows()["memory"]
    assert (row["state"], row["text"]) == ("note", "100 MiB free of 1024 MiB")


def test_who_has_the_budget(host: Host) -> None:
    host.put_qemu()
    assert host.rows()["budget"]["data"]["taken"] == 0
    directory = host.root / "cache" / "budget" / ledger_name()
    assert not directory.exists()
    budget = Budget(directory, default_limits(), report=print, give_up=print)
    [share] = budget.take([Wanted("machine 'vm'", Amount(256 << 20, 2, 1))], Holder(test="test_it"))
    row = host.rows()["budget"]
    share.release()
    budget.close()
    assert row["data"]["taken"] == 256 << 20
    assert f"(process {os.getpid()}, held)" in row["text"]
    assert "test_it" in row["text"]


def test_what_the_cache_has(host: Host) -> None:
    host.put_qemu()
    rows = host.rows()
    assert (rows["images"]["state"], rows["images"]["text"]) == ("note", "none yet")
    assert rows["images"]["fix"].startswith("pytest-kvm images build")
    assert rows["templates"]["text"] == "none yet"
    store = Templates(host.root / "cache" / "templates")
    with store.making("a1", Deadline(10)), store.new("a1") as folder:
        (folder / "ram").write_bytes(b"x" * (2 << 20))
    built = host.root / "cache" / "images" / "tiny-x"
    built.mkdir(parents=True)
    (built / "info.json").write_text("{}")
    (built / "vmlinuz").write_bytes(b"x" * (3 << 20))
    rows = host.rows()
    assert rows["templates"]["state"] == "note"
    assert rows["templates"]["text"] == "1 (2 MiB), 1 of them damaged"
    assert rows["templates"]["fix"] == "pytest-kvm templates prune"
    assert rows["images"]["data"]["size"] >= 3 << 20
