"""The kernel's unit tests: what it says of them, and where that is read."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_kvm import VM, CasesFailed, MachineError
from pytest_kvm.kernel.guest import GuestKernel
from pytest_kvm.kernel.ktap.case import Case, Outcome
from pytest_kvm.kernel.kunit.run import named, run_kunit
from pytest_kvm.kernel.kunit.says import Records, Suites, behind, of_console, of_log
from pytest_kvm.kernel.log import Message
from pytest_kvm.plugin.factories import VMFactory

# What Linux 6.1 says while a module of two suites is loaded that has been loaded once before.
SAID = [
    "sample: loading out-of-tree module taints kernel.",
    *("    KTAP version 1", "    # Subtest: first", "    1..3"),
    "    ok 1 adds",
    *("    # fails: EXPECTATION FAILED at sample.c:15", "    Expected 2 + 2 == 5, but", "    not ok 2 fails"),
    *("        KTAP version 1", "        # Subtest: is_even"),
    *("        ok 1 number 2", "        ok 2 number 4 # SKIP too large", "    ok 3 is_even"),
    *("# first: pass:2 fail:1 skip:0 total:3", "not ok 3 first"),
    *("    KTAP version 1", "    # Subtest: second", "    1..2", "    # waits: for a while", "    ok 1 waits"),
    *("    ok 2 last", "ok 4 second"),
]
SECOND = SAID.index("not ok 3 first") + 1
# Later versions begin with these.
HEAD = ["KTAP version 1", "1..2"]
NAMES = ["first/adds", "first/fails", "first/is_even/number 2", "first/is_even/number 4", "second/waits", "second/last"]


def test_records_of_kmsg() -> None:
    records = Records()
    assert records.take("6,339,5140900,-;NET: Registered\n") == [(5.1409, "NET: Registered")]
    assert records.take(" SUBSYSTEM=net\n") == []
    assert records.take("3,340,5140901,-,caller=T1;    one\\x0a    two \\x5c") == [
        (5.140901, "    one"),
        (5.140901, "    two \\"),
    ]
    assert records.take("6,339,5140900,-;NET: Registered\n") == []  # read again from the beginning
    assert records.lost == 0
    assert records.take("6,343,6000000,c;later") == [(6.0, "later")]
    assert records.lost == 2
    assert Records().take("6,339,5140900,-;") == [(5.1409, "")]


def test_other_ways_to_read_it() -> None:
    said = [(1.5, "one"), (1.5, "    two"), (2.0, "three")]
    assert of_log([Message("info", 1.5, "one\n    two"), Message("err", 2.0, "three")]) == said
    console = (
        "tiny login: [    1.500000] one\r\n[    1.500000][    T1]     two\r\nplain\r\n12:00:00.1 [    2.000000] three"
    )
    assert of_console(console) == said
    assert behind(said, None) == said
    assert behind(said, (1.5, "one")) == said[1:]
    assert behind(said, (2.0, "three")) == []
    assert behind(said, (1.0, "it has left the log")) == said
    assert behind(said, (1.5, "so has it")) == said[2:]


def test_suites_are_numbered_anew() -> None:
    suites = Suites()
    lines = [*HEAD, "    1..2", "    ok 7 case", "not ok 12 first # why", "ok, so what", "ok 13 second", "ok 14"]
    assert [suites(line) for line in lines] == [
        *("", "", "    1..2", "    ok 7 case", "not ok 1 first # why", "ok, so what", "ok 2 second", "ok 3"),
    ]


@pytest.mark.parametrize(
    ("name", "log", "outcome", "expected"),
    [
        ("suite/2", "    # fails: about to\nBUG: here", Outcome.CRASHED, "suite/fails"),
        ("suite/2", "    # is_even: one\n    # waits: two", Outcome.TIMEOUT, "suite/waits"),
        ("suite/2", "    # suite\n# suite: pass:1\nBUG: here", Outcome.CRASHED, "suite/2"),
        ("suite/2", "    # fails: about to", Outcome.FAILED, "suite/2"),
        ("suite/case", "    # fails: about to", Outcome.CRASHED, "suite/case"),
    ],
)
def test_the_name_of_what_runs(name: str, log: str, outcome: Outcome, expected: str) -> None:
    assert named(Case(name=name, outcome=outcome, log=log)) == expected


class Speaking(GuestKernel):
    """A kernel that says something when a module is loaded; the machine, its log and its console are real."""

    def __init__(self, vm: VM, lines: list[str], then: str = "") -> None:
        super().__init__(vm, None, {})
        self.vm = vm
        self.lines = lines
        self.then = then
        self.said = threading.Event()
        self.unloaded: list[str] = []

    def load(self, module: str, parameters: Mapping[str, object], *, timeout: float | None = None) -> None:
        texts = " ".join(shlex.quote(f"<6>{line}") for line in self.lines)
        script = f'echo on >/proc/sys/kernel/printk_devkmsg; for line in {texts}; do echo "$line" >/dev/kmsg; done; '
        self.vm.run(script + self.then, timeout=timeout)
        self.said.set()

    def unload(self, module: str) -> None:
        self.unloaded.append(module)


@pytest.fixture
def speaking(vm: VM) -> VM:
    vm.run("mkdir /tmp/modules && mount --bind /tmp/modules /sys/module && mkdir /sys/module/kunit")
    vm.run("echo '<6>    ok 1 of old' >/dev/kmsg")
    vm.observer = None
    return vm


def kunit(
    vm: VM, kernel: GuestKernel, *, check: bool = False, timeout: float | None = 60, filter_: str | None = None
) -> list[tuple[str, str]]:
    result = run_kunit(vm, kernel, "sample", {}, filter_=filter_, check=check, timeout=timeout)
    assert result.problems == []
    return [(case.name, case.outcome.value) for case in result.cases]


@pytest.mark.parametrize("head", [[], HEAD])
def test_cases_come_while_they_run(speaking: VM, head: list[str]) -> None:
    kernel = Speaking(speaking, [*head, *SAID], "sleep 1")
    early: list[bool] = []

    def observe(case: Case) -> bool:
        early.append(not kernel.said.is_set())
        return True

    speaking.observer = observe
    found = run_kunit(speaking, kernel, "a-sample.ko", {}, filter_=None, check=True, timeout=60)
    outcomes = ["passed", "failed", "passed", "skipped", "passed", "passed"]
    assert [(case.name, case.outcome.value) for case in found.cases] == list(zip(NAMES, outcomes, strict=True))
    assert "    # fails: EXPECTATION FAILED at sample.c:15\n    Expected 2 + 2 == 5, but" in found["first/fails"].log
    assert all(early)
    assert kernel.unloaded == ["a_sample"]
    assert speaking.run("cut -f1 /proc/sys/kernel/printk").stdout.split() == ["5"]


def test_without_our_shell(speaking: VM) -> None:
    speaking.shell, shell = None, speaking.shell
    kernel = Speaking(speaking, SAID)
    try:
        assert speaking.via == "SSH, as root"
        assert [name for name, _ in kunit(speaking, kernel)] == NAMES
    finally:
        speaking.shell = shell


def test_a_crash(speaking: VM) -> None:
    kernel = Speaking(speaking, SAID[:-3], "echo c >/proc/sysrq-trigger")
    told: list[tuple[str, str]] = []

    def observe(case: Case) -> bool:
        told.append((case.name, case.outcome.value))
        return True

    speaking.observer = observe
    with speaking.expect_panic("sysrq"), pytest.raises(MachineError):
        kunit(speaking, kernel, check=True)
    assert told[-2:] == [("second/waits", "crashed"), ("second/2", "not run")]
    assert kernel.unloaded == []


def test_an_expected_crash(speaking: VM) -> None:
    kernel = Speaking(speaking, SAID[:-3], "echo c >/proc/sysrq-trigger")
    with speaking.expect_panic("sysrq"):
        assert kunit(speaking, kernel)[-2:] == [("second/waits", "crashed"), ("second/2", "not run")]


def test_one_that_does_not_end(speaking: VM) -> None:
    kernel = Speaking(speaking, SAID[:-3], "sleep 600")
    assert kunit(speaking, kernel, timeout=2)[-2:] == [("second/waits", "timeout"), ("second/2", "not run")]
    with pytest.raises(CasesFailed, match=r"\nsecond/waits: timeout \(the tests did not end within 2 s\)"):
        kunit(speaking, kernel, timeout=2, check=True)


def test_one_that_is_loaded_or_built_in(speaking: VM) -> None:
    speaking.run("mkdir /sys/module/sample")
    kernel = Speaking(speaking, SAID)
    with pytest.raises(MachineError, match=r"module 'sample' is built into kernel .*: vm\.kunit\(\) has the results"):
        kunit(speaking, kernel)
    speaking.run("touch /sys/module/sample/initstate")
    assert len(kunit(speaking, kernel)) == 6
    assert kernel.unloaded == ["sample", "sample"]


def test_a_filter(speaking: VM) -> None:
    kernel = Speaking(speaking, SAID, "cat /sys/module/kunit/parameters/filter_glob >/tmp/filter")
    with pytest.raises(MachineError, match=r"only at boot: vm\(append='kunit\.filter_glob=first\*'\)$"):
        kunit(speaking, kernel, filter_="first*")
    speaking.run("mkdir /sys/module/kunit/parameters")
    kunit(speaking, kernel, filter_="first*")
    assert speaking.run("cat /tmp/filter").stdout == "first*"
    assert speaking.run("cat /sys/module/kunit/parameters/filter_glob").stdout == "*"


def test_one_without_tests(speaking: VM) -> None:
    with pytest.raises(CasesFailed, match=r"\nsample says nothing: there is no test of KUnit in it, or it is off"):
        kunit(speaking, Speaking(speaking, ["ok, loaded"]), check=True)


def test_one_that_cannot_be_loaded(speaking: VM) -> None:
    with pytest.raises(MachineError, match=r"module 'nonsense' cannot be loaded into kernel"):
        speaking.kunit("nonsense")
    assert speaking.run("cut -f1 /proc/sys/kernel/printk").stdout.split() == ["5"]


def test_results_of_boot(speaking: VM) -> None:
    with pytest.raises(MachineError, match=r"has no results of KUnit: no suite is built into it, or it has no CONFIG_"):
        speaking.kunit()
    speaking.run("mkdir -p /tmp/debug/kunit/first /tmp/debug/kunit/second; mount --bind /tmp/debug /sys/kernel/debug")
    for suite, lines in (("first", [*HEAD, *SAID[1:SECOND]]), ("second", SAID[SECOND:])):
        speaking.run(f"cat >/sys/kernel/debug/kunit/{suite}/results", input="\n".join([*lines, ""]))
    result = speaking.kunit(check=False)
    assert [case.name for case in result.cases] == NAMES
    assert result.problems == []


def test_a_kernel_without_it(vm: VM) -> None:
    with pytest.raises(MachineError, match=r"^VM 'vm': kernel 6.* has no KUnit: CONFIG_KUNIT is not set"):
        vm.kunit("example")


@pytest.mark.slow
def test_of_a_real_kernel(vm_factory: VMFactory, built_kernel_tree: Path) -> None:
    vm = vm_factory(kernel=built_kernel_tree)
    first = vm.kunit("kunit-example-test", check=False)
    assert first.good, first.text
    assert first["example/example_skip_test"].outcome is Outcome.SKIPPED
    again = vm.kunit("kunit-example-test", check=False)
    assert [case.name for case in again.cases] == [case.name for case in first.cases]
    assert vm.kunit("kunit-test", check=False).good  # several suites
    assert vm.kunit("list-test", check=False).good
    assert vm.kernel.taint == {"in-kernel test"}
    vm.modprobe("kunit-example-test")
    (case,) = [case for case in vm.kunit(check=False).cases if case.name == "example/example_simple_test"]
    assert case.outcome is Outcome.PASSED


@pytest.mark.slow
def test_modules_of_ones_own(vm_factory: VMFactory, built_kernel_tree: Path) -> None:
    vm = vm_factory(kernel=built_kernel_tree)
    result = vm.kunit(str(built_kernel_tree.parent / "kunit" / "sample_kunit.ko"), check=False)
    assert result.problems == []
    assert [(case.name, case.outcome.value) for case in result.cases] == [
        *(("first/adds", "passed"), ("first/fails", "failed"), ("first/skips", "skipped")),
        *((f"first/is_even/number {number}", "passed") for number in (2, 4)),
        *(("first/is_even/number 5", "failed"), ("second/crashes", "passed"), ("second/last", "passed")),
    ]
    assert "Expected 2 + 2 == 5, but\n        2 + 2 == 4" in result["first/fails"].log
    assert result["first/skips"].reason == "no hardware"
    with vm.expect_panic("sample crashes"):
        result = vm.kunit(str(built_kernel_tree.parent / "kunit" / "sample_crash.ko"), check=False)
    assert [(case.name, case.outcome.value) for case in result.cases[-2:]] == [
        ("second/crashes", "crashed"),
        ("second/2", "not run"),
    ]
