"""How a download advances: on a terminal, and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from pytest_kvm.images.progress import download_bar


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines() -> None:
    now = 1000.0
    said: list[str] = []
    with download_bar(2_000_000_000, report=said.append, clock=lambda: now) as show:
        for received in range(0, 2_000_000_000, 100_000_000):
            show(received)
            now += 10
    assert said == [f"downloaded {received}00.0 MB of 2000.0 MB" for received in (3, 6, 9, 12, 15, 18)]


def test_lines_of_unknown_size() -> None:
    now = 0.0
    said: list[str] = []
    with download_bar(None, report=said.append, clock=lambda: now) as show:
        now = 31.0
        show(5_000_000)
        show(6_000_000)
    assert said == ["downloaded 5.0 MB"]


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    said: list[str] = []
    with download_bar(1000, start=400, report=said.append, clock=lambda: 0.0) as show:
        show(500)
        show(300)  # from its beginning again: a bar does not go back
        show(1000)
    assert said == []
    assert "40%" in terminal.getvalue()
