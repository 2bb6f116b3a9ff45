"""How much memory there is, and how much is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.host import memory

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "current", "expected"),
    [
        (None, None, 20_000_000 * 1024),
        ("max", "5", 20_000_000 * 1024),
        ("1000", "400", 600),
        ("1000", "2000", 0),
        (str(1 << 50), "0", 20_000_000 * 1024),
    ],
)
def test_kernel_and_control_group(host: Path, limit: str | None, current: str | None, expected: int) -> None:
    if limit is not None and current is not None:
        (host / "memory.max").write_text(f"{limit}\n")
        (host / "memory.current").write_text(f"{current}\n")
    assert memory.available() == expected


def test_this_host() -> None:
    assert memory.available() > 0


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 24_000_000 * 1024),
        ("0::/\n", {"memory.max": "max"}, 24_000_000 * 1024),
        # Version 2: our group's, those above it, and the limit from which it is slowed down.
        ("0::/a/b\n", {"a/b/memory.max": "5000"}, 5000),
        ("0::/a/b\n", {"a/b/memory.max": "5000", "a/memory.max": "4000"}, 4000),
        ("0::/a/b\n", {"a/b/memory.max": "5000", "a/b/memory.high": "3000"}, 3000),
        ("0::/a/b\n", {"a/b/memory.max": "max", "c/memory.max": "1"}, 24_000_000 * 1024),
        # A container that sees its group as the root.
        ("0::/\n", {"memory.max": "5000"}, 5000),
        ("0::/../outside\n", {"memory.max": "5000"}, 5000),
        # Version 1.
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "5000"}, 5000),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "5000"}, 5000),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "5000"}, 5000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, 24_000_000 * 1024),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "5000"}, 24_000_000 * 1024),
    ],
)
def test_all_of_it(
    host: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected: int
) -> None:
    (host / "groups").write_text(groups)
    monkeypatch.setattr(memory, "_OUR_GROUPS", host / "groups")
    for name, content in files.items():
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text(f"{content}\n")
    assert memory.total() == expected


def test_all_of_a_kernel_without_groups(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_OUR_GROUPS", host / "none")
    assert memory.total() == 24_000_000 * 1024


def test_all_of_this_host() -> None:
    assert memory.total() >= memory.available() > 0
