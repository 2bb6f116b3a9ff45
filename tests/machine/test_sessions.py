"""Sessions with clones, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.machine.templates import Templates
from tests.stores import own_cache

CONFTEST = """
import pytest_kvm.machine.starting as starting

def pytest_addoption(parser):
    parser.addoption("--forbid-boots", action="store_true")

def pytest_configure(config):
    if config.getoption("--forbid-boots"):
        def boot(*arguments, **keywords):
            raise AssertionError("something was booted")
        starting.boot = boot
"""
KINDS = """
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_it(vm, n):
    assert vm.run("hostname; ls /tmp").stdout == "tiny\\n"
    vm.run("touch /tmp/mark; hostname changed")
    print("KIND", vm.started.kind)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = own_cache(tmp_path)
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(made))
    return made


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rP", "--kvm-strict", *options, timeout=300)


def kinds(result: pytest.RunResult) -> list[str]:
    return sorted(line.removeprefix("KIND ") for line in result.outlines if line.startswith("KIND "))


def test_one_boot_for_all_workers_and_sessions(pytester: pytest.Pytester, cache: Path) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(KINDS.format(count=6))
    result = run(pytester, "-n", "3")
    result.assert_outcomes(passed=6)
    assert kinds(result) == ["clone"] * 6
    assert len(Templates(cache / "templates").entries()) == 1
    size = sum(path.stat().st_size for path in (cache / "templates").rglob("*"))
    for options in (["-n", "2"], []):
        result = run(pytester, "--forbid-boots", *options)
        result.assert_outcomes(passed=6)
        assert kinds(result) == ["clone"] * 6
    assert sum(path.stat().st_size for path in (cache / "templates").rglob("*")) == size


def test_both(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(KINDS.format(count=1))
    result = run(pytester, "--kvm-start=both")
    result.assert_outcomes(passed=2)
    assert kinds(result) == ["boot", "clone"]


AHEAD = """
import time
import pytest
from pytest_kvm.plugin.launching import LAUNCHER

MADE = []
RANDOM = "head -c 16 /dev/urandom | hexdump -v -e '16/1 \\"%02x\\"'"

def test_first(vm, request):
    ahead = request.config.stash[LAUNCHER]._ahead._next
    ahead._thread.join()
    machine = ahead._vm
    assert machine.qmp.execute("query-status")["status"] == "paused"
    MADE.append(machine.pid)
    time.sleep(1.5)  # which its clock must not be behind

def test_second(vm):
    assert vm.pid == MADE[0]
    before = time.time()
    guest = int(vm.run("date +%s").stdout)
    assert before - 1.2 < guest <= time.time()
    assert vm.run(RANDOM).stdout != vm.run(RANDOM).stdout
    vm.console.expect("login: ", timeout=0)

@pytest.mark.vm(memory="192M")  # not what was expected when the one before ran
def test_third(vm):
    assert vm.run("awk '/MemTotal/ {print $2 < 192 * 1024}' /proc/meminfo").stdout == "1\\n"
"""


def test_the_next_machine_is_made_meanwhile(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(AHEAD)
    run(pytester).assert_outcomes(passed=3)
    run(pytester, "-k", "first or third").assert_outcomes(passed=2, deselected=1)
