"""--kvm-gcov in whole sessions: whose counters are fetched, and what is said where there are none."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from tests.kernel.counted import build, counters
from tests.outcomes import run_session

# The counters come into the guest while the test runs: the kernel is no other than everybody's.
SESSION = """
import base64
import pytest

COUNTERS = {{"e": {even!r}, "o": {odd!r}}}

def count(vm, word):
    vm.run("mkdir -p /tmp/debug/gcov; mount --bind /tmp/debug /sys/kernel/debug")
    vm.run("rm -rf /tmp/debug/gcov/*; tar -x -C /tmp/debug/gcov", input=base64.b64decode(COUNTERS[word]))

def test_even(vm):
    count(vm, "e")

def test_odd_and_fails(vm):
    count(vm, "o")
    assert False

@pytest.mark.vm("one")
@pytest.mark.vm("two")
def test_two(vms):
    count(vms["one"], "e")
    count(vms["two"], "e")

def test_late(vm_factory):
    count(vm_factory(), "o")

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared")

def test_shared(shared):
    count(shared, "e")

def test_shuts_down(vm):
    count(vm, "e")
    vm.shutdown()

def test_reboots(vm):
    count(vm, "e")
    vm.reboot()
    count(vm, "e")

def test_crashes(vm):
    count(vm, "e")
    with vm.expect_panic("sysrq"):
        vm.run("echo c >/proc/sysrq-trigger", check=False)

def test_is_killed(vm):
    count(vm, "e")
    vm.kill()

def test_is_paused(vm):
    count(vm, "e")
    vm.pause()

def test_has_none(vm):
    pass

@pytest.mark.vm(image=None)
def test_is_bare(vm):
    pass

@pytest.mark.vm(autostart=False)
def test_is_off(vm):
    pass

def test_has_no_machine():
    pass
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built") / "linux")


@pytest.mark.parametrize("workers", [pytest.param([], marks=pytest.mark.slow), ["-n", "2"]], ids=["alone", "xdist"])
def test_counts_of_tests(pytester: pytest.Pytester, tree: Path, workers: list[str]) -> None:
    even, odd = (base64.b64encode(counters(tree, word)).decode() for word in "eo")
    session = run_session(pytester, SESSION.format(even=even, odd=odd), "--kvm-gcov=out/coverage.info", *workers)
    text = (pytester.path / "out" / "coverage.info").read_text()
    found = {}
    for record in text.split("end_of_record\n"):
        lines = record.splitlines()
        if f"SF:{tree}/main.c" in lines:
            found[lines[0]] = [line for line in lines if line.startswith("FNDA") and not line.endswith("main")]
    assert found == {
        "TN:test_it_py__test_even": ["FNDA:1,even", "FNDA:0,odd"],
        "TN:test_it_py__test_odd_and_fails": ["FNDA:0,even", "FNDA:1,odd"],
        "TN:test_it_py__test_two": ["FNDA:2,even", "FNDA:0,odd"],
        "TN:test_it_py__test_late": ["FNDA:0,even", "FNDA:1,odd"],
        "TN:test_it_py__test_shared": ["FNDA:1,even", "FNDA:0,odd"],
        "TN:test_it_py__test_shuts_down": ["FNDA:1,even", "FNDA:0,odd"],
        "TN:test_it_py__test_reboots": ["FNDA:2,even", "FNDA:0,odd"],
    }, session.result.stdout.str()
    for line in (
        f"kvm: coverage of 7 tests is in {pytester.path}/out/coverage.info",
        "kvm: no coverage of 1 test: kernel 6.* is built without CONFIG_GCOV_KERNEL",
        "kvm: no coverage of 1 test: the guest was lost: VM 'vm': the guest's kernel panicked: sysrq triggered crash",
        "kvm: no coverage of 1 test: VM 'vm' was off at the end of the test",
        "kvm: no coverage of 1 test: VM 'vm' was paused at the end of the test",
        "kvm: no coverage of 1 test: VM 'vm': image None offers neither *",
    ):
        session.result.stdout.fnmatch_lines([line])
    assert session.result.stdout.str().count("kvm: no coverage") == 5
    assert [path.name for path in (pytester.path / "out").iterdir()] == ["coverage.info"]
    failed = {name for name in session.tests if session.outcome(name) != "passed"}
    assert failed == {"test_odd_and_fails"}


def test_a_kernel_without_counters(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, "def test_a(vm): pass\ndef test_b(vm): pass", "-o", "kvm_gcov=coverage.info")
    session.result.assert_outcomes(passed=2)
    session.result.stdout.fnmatch_lines(["kvm: no coverage of 2 tests: kernel * is built without CONFIG_GCOV_KERNEL"])
    assert not (pytester.path / "coverage.info").exists()


def test_no_machine_at_all(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--kvm-gcov=coverage.info")
    result.stdout.fnmatch_lines(["kvm: no coverage: no test had a machine"])
    assert sorted(path.name for path in pytester.path.glob("*cov*")) == []


def test_a_place_where_it_cannot_be(pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    result = pytester.runpytest("--kvm-gcov=file/coverage.info")
    result.stderr.fnmatch_lines(["ERROR: --kvm-gcov=*/file/coverage.info: Not a directory: *"])


COUNTED = """
import shutil

def test_queue(vm):
    vm.run_local(shutil.which("ipcmk"), "-Q")

def test_memory(vm):
    vm.run_local(shutil.which("ipcmk"), "-M", "4096")
"""


@pytest.mark.slow
def test_a_real_kernel(pytester: pytest.Pytester, built_kernel_tree: Path) -> None:
    assert shutil.which("ipcmk"), "util-linux has it"
    options = [f"--kvm-kernel={built_kernel_tree}", "--kvm-gcov=coverage.info"]
    session = run_session(pytester, COUNTED, *options)
    session.result.assert_outcomes(passed=2)
    lines = (pytester.path / "coverage.info").read_text().splitlines()
    counts: dict[tuple[str, str], int] = {}
    test = ""
    for line in lines:
        key, _, value = line.partition(":")
        if key == "TN":
            test = value.rpartition("__")[2]
        elif key == "FNDA":
            count, _, function = value.partition(",")
            counts[test, function] = int(count)
    assert counts["test_queue", "newque"] == 1
    assert counts["test_memory", "newseg"] == 1
    assert counts.get(("test_queue", "newseg"), 0) == counts.get(("test_memory", "newque"), 0) == 0
    assert f"SF:{built_kernel_tree}/ipc/msg.c" in lines
