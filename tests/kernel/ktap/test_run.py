"""Programs that speak KTAP in real guests, and what becomes of their cases in the session."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pytest_kvm import CasesFailed
from pytest_kvm.errors import CommandTimeout
from pytest_kvm.guest.result import CompletedCommand
from pytest_kvm.kernel.ktap.case import Case, Outcome
from pytest_kvm.kernel.ktap.run import run_ktap
from pytest_kvm.waiting import Watch

SCENE = """
import pytest
from pytest_kvm import CasesFailed, GuestPanic

SAYS = '''
echo 'TAP version 13'
echo '1..5'
echo '# first says this'
echo 'ok 1 first'
sleep 0.3
echo 'no such thing' >&2
echo 'not ok 2 second # exit=3'
echo 'ok 3 third # SKIP no hardware'
echo 'not ok 4 fourth # XFAIL known'
echo 'ok 5 net::fifth/sub [x]'
'''
CRASH = "echo 'KTAP version 1'; echo 1..4; echo ok 1 a; echo '# b'; sleep 0.2; echo c >/proc/sysrq-trigger; sleep 600"

def test_cases(vm):
    result = vm.run_ktap(SAYS)
    assert str(result) == "2 passed, 1 skipped, 1 xfailed, 1 failed"
    assert result["second"].seconds > 0.25

def test_all_good(vm):
    vm.run_ktap("echo 'KTAP version 1'; echo 1..1; echo ok 1 a")

def test_crash(vm):
    vm.run_ktap(CRASH)

def test_expected_crash(vm):
    with vm.expect_panic("sysrq"):
        result = vm.run_ktap(CRASH, check=False)
        assert result.returncode is None
        assert [case.outcome.value for case in result.cases] == ["passed", "crashed", "not run", "not run"]

def test_plan(vm):
    vm.run_ktap("echo 'KTAP version 1'; echo 1..2; echo ok 1 a")

def test_late(vm):
    vm.run_ktap("echo 'KTAP version 1'; echo 1..3; echo ok 1 a; sleep 600", timeout=1)
    assert vm.run("pidof sleep", check=False).returncode == 1

def test_ends_badly(vm):
    vm.run_ktap("echo 'KTAP version 1'; echo 1..1; echo ok 1 a; kill -SEGV $$")

def test_no_ktap(vm):
    vm.run_ktap(["./no-such-program"], cwd="/tmp")

def test_unchecked(vm):
    result = vm.run_ktap(SAYS, check=False)
    assert [case.name for case in result.failed] == ["second"]

def test_environment(vm):
    vm.run_ktap('echo "KTAP version 1"; echo 1..1; echo ok 1 "$WHO in $PWD"', env={"WHO": "me"}, cwd="/etc")

@pytest.fixture
def prepared(vm):
    vm.run_ktap(SAYS)

def test_in_a_fixture(prepared):
    pass
"""


def run(pytester: pytest.Pytester, *options: str) -> tuple[pytest.RunResult, dict[str, list[str]], ET.Element]:
    """Run the scene; return what was shown, the outcome of each test's subtests, and JUnit's XML."""
    pytester.makeconftest(
        """
        import json
        from pathlib import Path

        def pytest_configure(config):
            if not hasattr(config, "workerinput"):
                config.pluginmanager.register(Writer())

        class Writer:
            def pytest_runtest_logreport(self, report):
                if hasattr(report, "context"):
                    with Path(__file__).with_name("subtests.jsonl").open("a") as file:
                        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
                        test = report.nodeid.partition("::")[2]
                        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
                        words = [test, report.context.msg, outcome, text, report.duration]
                        print(json.dumps([*words, report.sections]), file=file)
        """
    )
    pytester.makepyfile(test_it=SCENE)
    plain = ("-p", "no:cacheprovider", "--kvm-strict", "--junitxml=junit.xml", "-rA")
    result = pytester.runpytest_subprocess(*plain, *options, timeout=300)
    subtests: dict[str, list[str]] = {}
    told = pytester.path / "subtests.jsonl"
    for line in told.read_text().splitlines() if told.exists() else []:
        test, name, outcome, text, duration, sections = json.loads(line)
        assert isinstance(duration, float)
        text = re.sub(r"^\[gw\d\] .*\n?", "", text)  # xdist says first where it ran
        logs = "".join(log for title, log in sections if title == "guest")
        subtests.setdefault(test, []).append(f"{name}: {outcome}|{text}|{logs}")
    return result, subtests, ET.parse(pytester.path / "junit.xml").getroot()


PANIC = "VM 'vm': the guest's kernel panicked: sysrq triggered crash"
CASES = [
    "first: passed||# first says this",
    "second: failed|second: failed (exit=3)\nno such thing|",
    "third: skipped|Skipped: no hardware|",
    "fourth: xfailed|",
    "net::fifth/sub [x]: passed||",
]


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.slow), ["-n", "2"]], ids=["alone", "xdist"])
def test_cases_are_subtests(options: list[str], pytester: pytest.Pytester) -> None:
    result, subtests, xml = run(pytester, *options)
    fourth = subtests["test_cases"].pop(3)
    assert fourth.startswith("fourth: xfailed|")
    assert subtests == {
        "test_cases": [*CASES[:3], CASES[4]],
        "test_all_good": ["a: passed||"],
        "test_crash": [
            "a: passed||",
            f"2: failed|2: crashed ({PANIC})\n# b|",
            f"3: failed|3: not run ({PANIC}, before it)|",
            f"4: failed|4: not run ({PANIC}, before it)|",
        ],
        "test_plan": ["a: passed||", "2: failed|2: not run (the program ended, before it)|"],
        "test_late": [
            "a: passed||",
            "2: failed|2: timeout (the program did not end within 1 s)|",
            "3: failed|3: not run (the program did not end within 1 s, before it)|",
        ],
        "test_ends_badly": ["a: passed||"],
        "test_environment": ["me in /etc: passed||"],
    }
    said = result.stdout.str()
    for name in ("test_cases", "test_crash", "test_plan", "test_late", "test_ends_badly", "test_no_ktap"):
        assert f"FAILED test_it.py::{name} - " in said
    for name in ("test_all_good", "test_expected_crash", "test_unchecked", "test_environment"):
        assert f"PASSED test_it.py::{name}" in said
    assert "ERROR test_it.py::test_in_a_fixture - " in said
    assert "contains 1 failed subtest" in said
    assert "E       the plan says 2 cases, and 1 came" in said
    assert "E       the program ended with status 139, although no case failed" in said
    assert "E       it says no KTAP and no TAP" in said
    assert f"E       pytest_kvm.errors.GuestPanic: {PANIC}" in said

    written = {(case.get("classname"), case.get("name")): case for case in xml.iter("testcase")}
    assert {name for where, name in written if where == "test_it.test_cases"} == {
        *("first", "second", "third", "fourth", "net:fifth/sub [x]"),
    }
    second = written["test_it.test_cases", "second"]
    assert float(second.get("time", "0")) > 0.25
    failure = second.find("failure")
    assert failure is not None
    assert failure.text == "second: failed (exit=3)\nno such thing"
    whole = written["test_it", "test_cases"].find("failure")
    assert whole is not None
    assert "contains 1 failed subtest" in (whole.text or "")
    assert [len(case.findall("failure")) for case in written.values()].count(2) == 0
    assert len([where for where, _ in written if where == "test_it.test_crash"]) == 4


def test_without_subtests(pytester: pytest.Pytester) -> None:
    result, subtests, _ = run(pytester, "-p", "no:subtests", "-k", "test_cases or all_good or fixture or unchecked")
    assert subtests == {}
    result.assert_outcomes(failed=1, passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "E       *CasesFailed: VM 'vm': 2 passed, 1 skipped, 1 xfailed, 1 failed (shell, as root): *",
            "E       second: failed (exit=3)",
            "E         no such thing",
        ]
    )


class Slow:
    """A guest that has no shell of ours: what a program says comes when it has ended."""

    name = "slow"
    shell = None
    via = "SSH, as me"
    expects_loss = False

    def __init__(self, answer: CompletedCommand[str] | Exception) -> None:
        self.watch = Watch()
        self.told: list[Case] = []
        self._answer = answer

    def observer(self, case: Case) -> bool:
        self.told.append(case)
        return False

    def popen(self, command: object) -> object:
        raise AssertionError

    def run(self, command: object, *, check: bool, timeout: float | None) -> CompletedCommand[str]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_a_guest_without_our_shell() -> None:
    guest = Slow(CompletedCommand("./test", 0, "KTAP version 1\n1..2\nok 1 a\nok 2 b\n", "", 0.1))
    result = run_ktap(guest, "./test", check=True, timeout=5, env=None, cwd=None)  # type: ignore[arg-type]
    assert [case.outcome for case in result.cases] == [Outcome.PASSED, Outcome.PASSED]
    assert guest.told == list(result.cases)
    late = CommandTimeout("late", timeout=5, command="./test", stdout="KTAP version 1\n1..2\nok 1 a\n", stderr="")
    with pytest.raises(CasesFailed, match="1 passed, 1 timeout") as caught:
        run_ktap(Slow(late), "./test", check=True, timeout=5, env=None, cwd=None)  # type: ignore[arg-type]
    assert (caught.value.failed, caught.value.problems) == (["2"], [])
    with pytest.raises(KeyError, match="there is no case 'c'; there are a, b"):
        result["c"]


def test_many_failures_are_told_shortly() -> None:
    lines = "".join(f"not ok {number} case{number}\n" for number in range(1, 31))
    guest = Slow(CompletedCommand("./test", 1, f"KTAP version 1\n1..30\n{lines}", "", 0.1))
    with pytest.raises(CasesFailed) as caught:
        run_ktap(guest, "./test", check=True, timeout=5, env=None, cwd=None)  # type: ignore[arg-type]
    assert str(caught.value).splitlines()[1:] == [*(f"case{n}: failed" for n in range(1, 11)), "and 20 more"]


def test_no_more_than_needed_is_imported(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile("import sys\ndef test_it(): assert 'pytest_kvm.kernel.ktap.parser' not in sys.modules")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
