"""The guest's own programs, run on the host: they are Linux programs like others."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from pytest_kvm.images.builtin.programs import programs

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="they are x86-64 machine code")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, content in programs().items():
        target = tmp_path / Path(path).name
        target.write_bytes(content)
        target.chmod(0o755)
    return tmp_path


def run(folder: Path, script: str) -> str:
    result = subprocess.run(
        ["sh", "-c", script], cwd=folder, env={"KEPT": "here", "PATH": "/usr/bin:/bin"}, check=True, capture_output=True
    )
    return result.stdout.decode()


def test_a_session_of_its_own(folder: Path) -> None:
    words = run(
        folder, "./session /bin/sh name -c 'echo $$ $0 $# $1 $KEPT; cut -d\" \" -f5,6 /proc/self/stat' name 'a b'"
    )
    (pid, *rest), (group, session) = (line.split() for line in words.splitlines())
    assert rest == ["name", "1", "a", "b", "here"]
    assert pid == group == session


@pytest.mark.parametrize(("name", "number"), [("INT", 2), ("QUIT", 3)])
def test_signals_that_a_background_job_would_ignore(folder: Path, name: str, number: int) -> None:
    job = f"-c 'kill -{name} $$; echo survived' & wait $!; echo $?"
    assert run(folder, f"ulimit -c 0; /bin/sh {job}") == "survived\n0\n"
    assert run(folder, f"ulimit -c 0; ./session /bin/sh sh {job}") == f"{128 + number}\n"


def test_a_program_that_is_not_there(folder: Path) -> None:
    assert run(folder, "./session /nonexistent x; echo $?") == "127\n"


def test_resume_ends_with_its_port(folder: Path) -> None:
    # With a request it would set this host's clock.
    assert run(folder, "./resume </dev/null; echo $?") == "1\n"
    assert run(folder, "printf short | ./resume; echo $?") == "1\n"
