"""The host's time stamp counter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.host import clock
from pytest_kvm.host.clock import tsc_khz


@pytest.mark.parametrize(
    ("frequency", "cpuinfo", "expected"),
    [
        ("2399998\n", "cpu MHz\t\t: 800.000\n", 2399998),
        (None, "processor\t: 0\ncpu MHz\t\t: 2100.0004\nprocessor\t: 1\ncpu MHz\t\t: 1.0\n", 2100000),
        (None, "processor\t: 0\n", None),
    ],
)
def test_where_it_is_read(
    frequency: str | None, cpuinfo: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if frequency is not None:
        (tmp_path / "frequency").write_text(frequency)
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(clock, "_FREQUENCY", tmp_path / "frequency")
    monkeypatch.setattr(clock, "_CPUINFO", tmp_path / "cpuinfo")
    assert tsc_khz() == expected
