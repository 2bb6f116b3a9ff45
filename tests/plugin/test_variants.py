"""``--kvm-qemu`` given repeatedly, ``--kvm-repeat`` and ``--kvm-until-failure``, with real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.plugin.variants import _ids
from pytest_kvm.qemu.binary import find_qemu
from tests.outcomes import run_session
from tests.qemu.fakes import program

# Bare machines are quick, and as good as others here.
MATRIX = """
import os, pytest

pytestmark = pytest.mark.vm(image=None)

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared", image=None)

def binary(vm):
    return os.readlink(f"/proc/{vm.pid}/exe") + " " + vm.command[0]

def test_mine(vm, shared):
    assert binary(vm) == binary(shared)
    print("USES", vm.command[0])

def test_other(vm_factory, shared):
    assert binary(vm_factory()) == binary(shared)

def test_without():
    pass
"""


@pytest.fixture
def wrappers(tmp_path: Path) -> list[Path]:
    """Two programs that become the real QEMU."""
    script = f'exec {find_qemu().path} "$@"\n'
    return [program(tmp_path / name / "qemu", script) for name in ("old", "new")]


@pytest.mark.parametrize("workers", [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_several_binaries(pytester: pytest.Pytester, wrappers: list[Path], workers: list[str]) -> None:
    session = run_session(pytester, MATRIX, *(f"--kvm-qemu={path}" for path in wrappers), *workers)
    session.result.assert_outcomes(passed=5)
    assert set(session.tests) == {
        *("test_mine[old-qemu]", "test_mine[new-qemu]", "test_other[old-qemu]", "test_other[new-qemu]"),
        "test_without",
    }
    for name in ("old", "new"):
        (call,) = (told for told in session.tests[f"test_mine[{name}-qemu]"] if told.when == "call")
        assert f"USES {wrappers[0].parent.parent / name / 'qemu'}\n" in dict(call.sections)["Captured stdout call"]
    for path in wrappers:
        assert f"({path})" in session.result.stdout.str()  # the header


def test_in_the_ini_file(pytester: pytest.Pytester, wrappers: list[Path]) -> None:
    lines = "".join(f"\n    {path}" for path in wrappers)
    pytester.makeini(f"[pytest]\nkvm_qemu ={lines}\n")
    session = run_session(pytester, MATRIX)
    session.result.assert_outcomes(passed=5)
    session = run_session(pytester, MATRIX, f"--kvm-qemu={wrappers[0]}")
    session.result.assert_outcomes(passed=3)
    assert "test_mine" in session.tests  # one binary is no variant


def test_one_that_is_not_there(pytester: pytest.Pytester, wrappers: list[Path]) -> None:
    session = run_session(pytester, MATRIX, f"--kvm-qemu={wrappers[0]}", "--kvm-qemu=/no/such/qemu")
    session.result.assert_outcomes(passed=3, errors=2)
    assert "--kvm-qemu=/no/such/qemu: no such executable" in session.text("test_mine[such-qemu]")


def test_ids() -> None:
    real = str(find_qemu().path)
    assert _ids(["/a/qemu", "/b/qemu"]) == ["a-qemu", "b-qemu"]
    assert _ids(["/a/x/qemu", "/b/x/qemu", "kvm"]) == ["a-x-qemu", "b-x-qemu", "kvm"]
    assert _ids(["/a/qemu", "/a/qemu"]) == ["qemu-1", "qemu-2"]
    assert _ids([real]) == [f"qemu-{find_qemu().version_text}"]


REPEATED = """
import pytest
from pathlib import Path

@pytest.mark.vm(image=None)
@pytest.mark.parametrize("kind", ["a"])
def test_vm(vm, kind):
    with open("pids", "a") as file:
        print(vm.pid, file=file)
    assert len(Path("pids").read_text().split()) < {fails_at}

def test_without():
    with open("without", "a") as file:
        print("once", file=file)
"""


def pids(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "pids").read_text().split()


def test_repeated(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, REPEATED.format(fails_at=9), "--kvm-repeat=3")
    session.result.assert_outcomes(passed=4)
    assert set(session.tests) == {"test_vm[1of3-a]", "test_vm[2of3-a]", "test_vm[3of3-a]", "test_without"}
    assert len(set(pids(pytester))) == 3


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_until_failure_but_not_for_ever(pytester: pytest.Pytester, workers: list[str]) -> None:
    session = run_session(pytester, REPEATED.format(fails_at=2), "--kvm-until-failure", "--kvm-repeat=9", *workers)
    assert session.outcome("test_vm[2of9-a]") == "call failed"
    assert "test_vm[4of9-a]" not in session.tests  # a worker may have begun one more
    assert (pytester.path / "test-results").is_dir()


def test_until_failure(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, REPEATED.format(fails_at=4), "--kvm-until-failure")
    session.result.assert_outcomes(passed=4, failed=1)
    session.result.stdout.fnmatch_lines(["kvm: round 4", "!*stopping after 1 failures, in round 4 !*"])
    assert len(set(pids(pytester))) == 4
    assert (pytester.path / "without").read_text() == "once\n"
    (folder,) = (pytester.path / "test-results").iterdir()
    assert (folder / "vm" / "command.txt").exists()


def test_until_failure_of_a_test_without_a_machine(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, "def test_it(): assert 0\ndef test_next(): pass", "--kvm-until-failure")
    session.result.assert_outcomes(failed=1)


def test_rounds_need_an_end_under_xdist(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--kvm-until-failure", "-n", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kvm-until-failure: with -n, say with --kvm-repeat=N how often at most"])


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_wrong_number(pytester: pytest.Pytester, value: str) -> None:
    result = pytester.runpytest_subprocess(f"--kvm-repeat={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --kvm-repeat={value}: expected a number, at least 1, got '{value}'"])
