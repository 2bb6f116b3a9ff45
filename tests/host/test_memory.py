"""How much memory is left."""

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
