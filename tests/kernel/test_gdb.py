"""gdb attaches to machines: the real one, to real guests."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvm import VM, SpecError
from pytest_kvm.kernel.gdb import GDB
from tests.outcomes import run_session


def gdb(command: list[str], *commands: str) -> str:
    """Run gdb, attach as it was told, give it commands and detach; return what it says."""
    words = [*command[:1], "-batch", "-nx", *command[1:], *(word for each in commands for word in ("-ex", each))]
    done = subprocess.run([*words, "-ex", "detach"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.vm(gdb=True)
def test_a_running_machine(vm: VM) -> None:
    assert len(bytes(vm.gdb.socket)) <= 107
    assert "nokaslr" in vm.run("cat /proc/cmdline").stdout.split()
    stopped = "0x[0-9a-f]+"
    assert re.search(rf"^rip +{stopped} ", gdb([*vm.gdb.command], "info registers rip"), re.MULTILINE)
    # It goes on, and can be attached to once more.
    assert vm.run("echo on").stdout == "on\n"
    gdb([*vm.gdb.command], "info registers rip")
    vm.reboot()
    gdb([*vm.gdb.command], "info registers rip")
    assert vm.run("echo on").stdout == "on\n"


def test_one_that_was_not_declared_so(vm: VM) -> None:
    with pytest.raises(SpecError, match=r"^VM 'vm' was not declared with gdb=True$"):
        vm.gdb  # noqa: B018 - it is a property
    assert "nokaslr" not in vm.run("cat /proc/cmdline").stdout


SESSION = """
import pytest

@pytest.mark.vm(gdb=True, start={start!r})
def test_it(vm):
    assert vm.started.kind == {start!r}

@pytest.mark.vm(gdb=True, append="kaslr")
def test_as_the_test_says(vm):
    assert "nokaslr" not in vm.run("cat /proc/cmdline").stdout

def test_not_declared(vm):
    pass
"""


@pytest.mark.parametrize("start", ["boot", "clone"])
def test_the_command_is_told(start: str, pytester: pytest.Pytester) -> None:
    session = run_session(pytester, SESSION.format(start=start))
    session.result.assert_outcomes(passed=3)
    said = session.result.stdout.str()
    assert len(re.findall(r"^kvm: VM 'vm': gdb -ex 'target remote /\S+/gdb'$", said, re.MULTILINE)) == 2


WAITING = """
import pytest

def test_first(vm):
    assert vm.started.kind == "boot"
    assert vm.run("echo up").stdout == "up\\n"

@pytest.mark.vm(machine="none", image=None)
def test_no_cpu(vm):
    pass
"""


def test_machines_that_wait(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=WAITING)
    # A limit that would not be enough: nobody is in a hurry with gdb.
    options = ["-p", "no:cacheprovider", "--kvm-gdb-wait", "--kvm-timeout=0.5", "-v"]
    command = [sys.executable, "-m", "pytest", *options]
    said = ""
    with pytester.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as session:
        try:
            assert session.stdout is not None
            for line in iter(session.stdout.readline, b""):
                said += line.decode()
                told = re.match(r"kvm: VM 'vm' waits for gdb, and for 'continue' in it: (gdb .*)", line.decode())
                if told is not None:
                    # Where all x86 processors begin.
                    registers = gdb(shlex.split(told[1]), "info registers rip cs")
                    assert re.search(r"^rip +0xfff0 ", registers, re.MULTILINE), registers
                    assert re.search(r"^cs +0xf000 ", registers, re.MULTILINE), registers
            assert session.wait(60) == 0, said
        finally:
            session.kill()
    assert said.count("waits for gdb") == 1
    assert "2 passed" in said


def test_in_several_processes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(vm): assert vm.started.kind == 'clone'")
    result = pytester.runpytest_subprocess("--kvm-gdb-wait", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: --kvm-gdb-wait lets machines wait *; leave out -n")
    result = pytester.runpytest_subprocess("-o", "kvm_gdb_wait=true", "-n", "1", timeout=120)
    result.assert_outcomes(passed=1)


def test_with_symbols(tmp_path: Path) -> None:
    vmlinux = tmp_path / "a tree" / "vmlinux"
    vmlinux.parent.mkdir()
    found = GDB(Path("/run/gdb"), vmlinux)
    assert str(found) == f"gdb '{vmlinux}' -ex 'target remote /run/gdb'"
    (vmlinux.parent / "vmlinux-gdb.py").touch()
    assert found.command == [
        *("gdb", "-iex", f"add-auto-load-safe-path {vmlinux.parent}", str(vmlinux)),
        *("-ex", "target remote /run/gdb", "-ex", "lx-symbols"),
    ]
