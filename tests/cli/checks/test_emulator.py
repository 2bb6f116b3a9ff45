"""Which QEMU is here, and which is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.hosts import Host
from tests.qemu.fakes import ANSWERS, program


def test_qemu_that_is_named(host: Host, tmp_path: Path) -> None:
    host.put("qemu-img")
    path = program(tmp_path / "my qemu", ANSWERS)
    assert host.doctor()[0] == 1
    status, out, _ = host.doctor("--qemu", str(path))
    assert status == 0
    assert f"({path}), used" in out[1]


def test_qemu_that_is_named_and_not_there_is_not_installed(host: Host) -> None:
    host.put("qemu-img")
    host.put_apt()
    status, out, _ = host.doctor("--qemu", "/no/qemu", "--install", "--yes")
    assert status == 1
    assert out[1] == "  broken   qemu          --kvm-qemu=/no/qemu: no such executable"
    assert host.told() == []


def test_several_qemus(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_qemu()
    (host.bin / "qemu-kvm").symlink_to(host.bin / "qemu-system-x86_64")  # the same one
    other = program(host.root / "other" / "qemu-system-x86_64", ANSWERS.replace("9.1.2", "10.0.2"))
    broken = program(host.root / "other" / "kvm", "exit 7")
    monkeypatch.setenv("PATH", f"{host.bin}:{host.root}/other")
    _, out, _ = host.doctor()
    assert out[1:4] == [
        f"  ok       qemu          9.1.2 ({host.bin}/qemu-system-x86_64), used",
        f"  ok       qemu          10.0.2 ({other}), not used: --kvm-qemu={other}",
        f"  note     qemu          not used: {broken} -version failed with status 7: ",
    ]


def test_a_qemu_that_does_not_run(host: Host) -> None:
    host.put("qemu-system-x86_64", "echo cannot load libfdt >&2; exit 127")
    host.put("qemu-img")
    host.put_apt()
    status, out, _ = host.doctor("--install", "--yes")
    assert status == 1
    assert out[1].startswith("  broken   qemu ")
    assert out[1].endswith("failed with status 127: cannot load libfdt")
    assert out[-1] == "No machine can run here: qemu is broken."
    assert host.told() == []  # it is there: its package is installed
