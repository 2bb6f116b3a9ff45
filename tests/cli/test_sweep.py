"""``pytest-kvm sweep``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvm.cli import main
from pytest_kvm.host.rundir import make_run_dir

KILLED = """
import os
from pathlib import Path
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.machine.templates import Templates
from pytest_kvm.waiting import Deadline
made = make_run_dir()
(made.path / "disk0.qcow2").write_bytes(bytes(2 << 20))
store = Templates(cache_dir() / "templates")
with store.making("a", Deadline(10)), store.new("a") as folder:
    (folder / "ram").write_bytes(bytes(3 << 20))
    print(made.path, folder, sep="\\n", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "tmp"
    base.mkdir()
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", str(base))
    return base


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["sweep", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == [
        "0 directories that killed sessions left removed (0 MiB)",
        f"0 in the cache {base.parent / 'cache'} removed (0 MiB)",
    ]


def test_everything(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    directory, template = killed.stdout.splitlines()
    with make_run_dir() as living:
        for arguments, verb in ((("--dry-run",), "would be removed"), ((), "removed")):
            lines = run(capsys, *arguments)
            assert lines == [
                f"{directory}: {verb} (2 MiB)",
                f"{living}: left, in use by process {os.getpid()}",
                f"{template}: {verb} (3 MiB)",
                f"1 directory that a killed session left {verb} (2 MiB)",
                f"1 in the cache {base.parent / 'cache'} {verb} (3 MiB)",
            ]
            assert Path(directory).exists() == Path(template).exists() == bool(arguments)
        assert living.exists()


def test_no_place(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base.rmdir()
    assert main(["sweep"]) == 1
    assert re.match(r"pytest-kvm: cannot look into \S+: No such file", capsys.readouterr().err)
