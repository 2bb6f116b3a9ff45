"""Folders of the host in the guest: programs go in, results come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, FromFixture, Share


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "measure").write_text("#!/bin/sh\nwc -l </proc/modules >/results/modules\n")
    (folder / "measure").chmod(0o755)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.vm(
    shares=[
        Share(FromFixture("programs"), "/programs"),
        Share(FromFixture("results"), "/results", readonly=False),
    ]
)
def test_programs_and_results(vm: VM, results: Path) -> None:
    vm.run("/programs/measure")
    assert int((results / "modules").read_text()) > 0
