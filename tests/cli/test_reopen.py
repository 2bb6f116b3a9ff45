"""``pytest-kvm reopen``: saved machines, brought back by a process of its own."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pexpect
import pytest

from pytest_kvm import VMFactory
from pytest_kvm.machine.preserving import preserve

REOPEN = [sys.executable, "-m", "pytest_kvm", "reopen"]
TIMEOUT = 120  # the host may be busy


@pytest.fixture(scope="module")
def machines(vm_session_factory: VMFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The artifacts of a test with two machines, one running and one whose guest has panicked."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("running", "panicked"):
        with closing(vm_session_factory(name)) as vm:
            vm.run("echo MARK >/tmp/marker")
            if name == "panicked":
                with vm.expect_panic():
                    vm.run("echo c >/proc/sysrq-trigger; sleep 600", timeout=TIMEOUT)
            preserve(vm, folder / name / "state", test="test_it.py::test_it")
    yield folder
    shutil.rmtree(folder)  # pytest keeps its folders for a while, and this one is large


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own for the command's temporary files shows what is left there."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REOPEN, *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT)


def test_a_command(machines: Path, temporary: Path) -> None:
    command = "cat /tmp/marker; echo wrong >&2; exit 3"
    result = run(machines / "running", "--run", command)
    assert (result.returncode, result.stdout, result.stderr) == (3, "MARK\n", "wrong\n")
    result = run(machines / "running" / "state", "--run", "sleep 600", "--timeout=0.5")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "pytest-kvm: command is still running after 0.5 s: 'sleep 600'\n"
    assert list(temporary.iterdir()) == []


def test_a_command_after_a_panic(machines: Path) -> None:
    result = run(machines / "panicked", "--run", "true")
    assert result.returncode == 1
    assert result.stderr == (
        "pytest-kvm: VM 'panicked' is guest-panicked: its guest runs no command; look at it with QMP\n"
    )


def test_its_console(machines: Path, temporary: Path) -> None:
    arguments = [*REOPEN[1:], str(machines / "running")]
    terminal = pexpect.spawn(REOPEN[0], arguments, encoding="utf-8", timeout=TIMEOUT, dimensions=(24, 300))
    terminal.expect(r"Saved 20\S+ \S+ when test_it\.py::test_it failed, running then\.\r\n")
    terminal.expect(r"VM 'running' is running, in (\S+):\r\n")
    terminal.expect(r" SSH +(ssh [^\r\n]*root@127\.0\.0\.1)\r\n")
    assert isinstance(terminal.match, re.Match)
    assert subprocess.check_output(["sh", "-c", f"{terminal.match[1]} cat /tmp/marker"], text=True) == "MARK\n"
    terminal.expect_exact("This is its console; Ctrl-] ends the machine.")
    terminal.send("\r")
    terminal.expect_exact("login: ")
    terminal.send("root\r")
    terminal.expect_exact("# ")
    terminal.send("cat /tmp/marker\r")
    terminal.expect_exact("MARK\r\n")
    terminal.send("\x1d")
    terminal.expect_exact("The machine has ended; its directory is as it was.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert list(temporary.iterdir()) == []


def test_a_guest_that_powers_off(machines: Path) -> None:
    arguments = [*REOPEN[1:], str(machines / "running")]
    terminal = pexpect.spawn(REOPEN[0], arguments, encoding="utf-8", timeout=TIMEOUT)
    terminal.expect_exact("Ctrl-] ends the machine.")
    terminal.send("\r")
    terminal.expect_exact("login: ")
    terminal.send("root\r")
    terminal.expect_exact("# ")
    terminal.send("poweroff\r")
    terminal.expect_exact("The machine has ended")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


class Background:
    """A command that waits, without a terminal."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*REOPEN, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.said = ""
        while "Ctrl-C ends it." not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=TIMEOUT)[0]
        return self.process.returncode


def query_status(monitor: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(monitor))
        with connection.makefile("rw") as stream:
            stream.readline()
            for command in ("qmp_capabilities", "query-status"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
    status: dict[str, Any] = answer["return"]
    return status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_panic_looked_at_with_qmp(machines: Path, temporary: Path, number: signal.Signals) -> None:
    held = Background(machines / "panicked", "--no-console")
    assert "failed, guest-panicked then." in held.said
    assert " SSH " not in held.said
    found = re.search(r" QMP +.*qmp.shell (\S+)\n", held.said)
    assert found is not None
    assert query_status(Path(found[1]))["status"] == "guest-panicked"
    assert held.end(number) == 0
    assert "The machine has ended; its directory is as it was." in held.said
    assert list(temporary.iterdir()) == []


def test_killed(machines: Path, temporary: Path) -> None:
    held = Background(machines / "running")
    (folder,) = temporary.iterdir()
    children = Path(f"/proc/{held.process.pid}/task").glob("*/children")
    qemus = [os.pidfd_open(int(pid)) for file in children for pid in file.read_text().split()]
    assert len(qemus) == 1
    held.end(signal.SIGKILL)
    assert select.select(qemus, [], [], 10)[0] == qemus
    os.close(qemus[0])
    shutil.rmtree(folder)


def test_no_machine(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"pytest-kvm: {tmp_path} holds no machine: there is neither manifest.json nor state/manifest.json\n"
    )


def test_another_qemu(machines: Path, tmp_path: Path) -> None:
    older = tmp_path / "qemu-system-x86_64"
    real = shutil.which("qemu-system-x86_64")
    older.write_text(f"#!/bin/sh\n{real} \"$@\" | grep -v '^pc-q35'\n")
    older.chmod(0o755)
    result = run(machines / "running", f"--qemu={older}")
    assert result.returncode == 1
    assert re.search(r"was saved by QEMU \S+ and is a pc-q35-\S+; /\S+, version \S+, does not know that", result.stderr)
