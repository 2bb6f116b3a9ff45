"""What the tests of the commands share."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from tests.cli.hosts import Host
from tests.qemu.fakes import ANSWERS, program


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Host:
    made = Host(tmp_path, tmp_path / "bin", tmp_path / "shelf", tmp_path / "log", capfd)
    made.bin.mkdir()
    (made.bin / "env").symlink_to(shutil.which("env") or "/usr/bin/env")
    program(made.shelf / "qemu-system-x86_64", ANSWERS)
    program(made.shelf / "qemu-img", "")
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    monkeypatch.delenv("CI", raising=False)
    for name, value in {
        "qemu.binary.platform.machine": lambda: "x86_64",
        "qemu.binary._LIBEXEC": str(tmp_path / "libexec"),
        "host.device.DEVICE": str(tmp_path / "kvm"),
        "host.device.CONTAINER_MARKS": (),
        "host.device.CPUINFO": tmp_path / "cpuinfo",
        "cli.packages.os.geteuid": lambda: 0,
        "host.helpers.HELPERS": (str(tmp_path / "helpers"),),
        "host.uefi.directories": lambda _data: [tmp_path / "firmware"],
        "cli.checks.network.BRIDGES": tmp_path / "bridge.conf",
    }.items():
        monkeypatch.setattr(f"pytest_kvm.{name}", value)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return made
