"""Real machines on a small budget: they wait for one another, and give back what they took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytest_kvm.errors import BudgetExceeded, LaunchError, SpecError
from pytest_kvm.host.amounts import Limits
from pytest_kvm.host.cache import CACHE_VARIABLE
from pytest_kvm.host.ledger import ledger_name
from pytest_kvm.machine.cost import QEMU_ITSELF, wanted
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings
from pytest_kvm.spec.vm import VMSpec
from tests.host.contender import MIB, Contender, until
from tests.stores import own_cache

SPEC = VMSpec(accel="tcg")
ONE = 256 * MIB + QEMU_ITSELF


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a ledger of one's own: what others take on this host does not count."""
    cache = own_cache(tmp_path, "budget")
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    return cache / "budget" / ledger_name()


@pytest.fixture
def launcher(ledger: Path) -> Iterator[Callable[..., Launcher]]:
    """Makes launchers with a budget of so many bytes."""
    with ExitStack() as stack:
        yield lambda memory: stack.enter_context(closing(Launcher(Settings(limits=Limits(memory=memory)))))


@pytest.mark.parametrize(
    ("spec", "memory", "vcpus"),
    [
        (SPEC, 256, 1),
        (SPEC.replace(memory="1G", smp=4), 1024, 4),
        (SPEC.replace(memory="256M,slots=2,maxmem=1G", smp="2,maxcpus=4"), 1024, 2),
    ],
)
def test_what_a_machine_takes(spec: VMSpec, memory: int, vcpus: int) -> None:
    amount = wanted(spec).amount
    assert (amount.memory, amount.vcpus, amount.machines) == (memory * MIB + QEMU_ITSELF, vcpus, 1)


def held(ledger: Path) -> list[str]:
    return [path.name for path in ledger.iterdir() if path.name.endswith(".held")] if ledger.exists() else []


def test_a_machine_gives_its_share_back(launcher: Callable[..., Launcher], ledger: Path) -> None:
    made = launcher(ONE)
    with closing(made.create(SPEC)) as vm:
        assert len(held(ledger)) == 1
        with pytest.raises(BudgetExceeded, match=r"VM 'vm' takes 384 MiB and 1 vCPU, and 384 of 384 MiB are taken\."):
            made.create(SPEC)
        vm.power_cut()
        assert len(held(ledger)) == 1  # it may be started again
        with pytest.raises(BudgetExceeded):
            made.create(SPEC)
    assert held(ledger) == []
    made.create(SPEC.replace(autostart=False, image=None)).close()


def test_a_machine_that_does_not_come_up_takes_nothing(launcher: Callable[..., Launcher], ledger: Path) -> None:
    made = launcher(ONE)
    with pytest.raises(LaunchError):
        made.create(SPEC.replace(args=["-nonsense"]))
    with pytest.raises(SpecError):
        made.create(SPEC.replace(append="quiet", image=None))
    assert held(ledger) == []


def test_a_template_is_made_in_the_share_of_its_first_clone(launcher: Callable[..., Launcher], ledger: Path) -> None:
    (ledger.parents[1] / "templates").unlink()
    with closing(launcher(ONE).create(SPEC.replace(image=None, start="clone"))) as vm:
        assert vm.started is not None
        assert vm.started.kind == "clone"


def test_a_snapshot_takes_a_second_share(launcher: Callable[..., Launcher], ledger: Path) -> None:
    spec = SPEC.replace(image=None, memory="64M")
    with closing(launcher(300 * MIB).create(spec)) as vm:
        refused = r"VM 'vm' \(its snapshot\) takes 192 MiB and 1 vCPU, and 192 of 300 MiB are taken\."
        with pytest.raises(BudgetExceeded, match=refused):
            vm.snapshot()
        assert vm.qmp.execute("query-status")["running"]
    with closing(launcher(400 * MIB).create(spec)) as vm:
        vm.snapshot()
        assert len(held(ledger)) == 1


def test_what_was_made_ahead_is_given_up(launcher: Callable[..., Launcher], ledger: Path) -> None:
    made = launcher(2 * ONE)
    made.create(SPEC).close()  # from now on there is a template
    with closing(Contender(ledger, 2 * ONE // MIB)) as other:
        made.prepare(SPEC)
        ahead = made._ahead._next
        assert ahead is not None
        until(lambda: ahead._vm is not None and ahead._vm.running)
        vm = ahead._vm
        assert other.do("take", "a", 2 * ONE // MIB) == "took a"
        assert vm is not None
        assert not vm.running
        made.prepare(SPEC)
        assert made._ahead._next is None
        other.do("release", "a")
        made.prepare(SPEC)
        with closing(made.create(SPEC)) as vm:
            assert f"VM 'vm' (384 MiB and 1 vCPU, pid {os.getpid()}, since " in other.do("take", "b", ONE // MIB + 1)


TURNS = """
import os
import time
from pathlib import Path

import pytest

FOLDER = Path({folder!r})
LEDGER = Path({ledger!r})

def others_wait():
    return any(name.endswith(".waiting") for name in os.listdir(LEDGER))

@pytest.fixture
def alone():
    (FOLDER / "here").mkdir()  # which is there when another test runs, too
    yield
    (FOLDER / "here").rmdir()

@pytest.mark.parametrize("number", range(4))
def test_one(vm, alone, number):
    if not (FOLDER / "waited").exists():
        while not others_wait():  # the other worker has a test for its machine, too
            time.sleep(0.01)
        (FOLDER / "waited").touch()
    assert vm.run("echo works").stdout == "works\\n"
"""


def test_workers_take_turns(pytester: pytest.Pytester, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makepyfile(TURNS.format(folder=str(pytester.path), ledger=str(ledger)))
    options = ["-n2", "--kvm-strict", "--kvm-memory-budget=400M", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=4)
    result.stderr.re_match_lines(
        [
            r"kvm: \[gw\d\] VM 'vm' of .*::test_one\[\d\] waits for 384 MiB and 1 vCPU: "
            r"384 of 400 MiB, 1 of \d+ vCPUs are taken by VM 'vm' of .*::test_one\[\d\] "
            r"\(384 MiB and 1 vCPU, pid \d+, since \d\d:\d\d:\d\d\)"
        ]
    )
    assert not ledger.exists()


LATER = """
import pytest

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared", image=None, memory="64M")

@pytest.mark.vm(image=None, memory="64M")
def test_later(vm, vm_factory):
    vm_factory()

@pytest.mark.vm("a", image=None, memory="64M")
@pytest.mark.vm("b", image=None, memory="64M")
def test_larger(vms): pass

@pytest.mark.vm(image=None, memory="64M")
def test_session(vm, request):
    request.getfixturevalue("shared")

@pytest.mark.vm(image=None, memory="64M")
def test_beside_a_session(shared, vm): pass
"""


def test_what_does_not_wait_is_refused(
    pytester: pytest.Pytester, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    pytester.makepyfile(LATER)
    options = ["--kvm-memory-budget=300M", "--kvm-max-vcpus=off", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess(*options, "-rs")
    result.assert_outcomes(skipped=4)
    for line in (
        r"SKIPPED .*VM 'vm2' of .*::test_later takes 192 MiB and 1 vCPU, and 192 of 300 MiB are taken\. It does not ",
        r"- VM 'vm' of .*::test_later \(192 MiB and 1 vCPU, pid \d+, since [\d:]+\)",
        r"SKIPPED .*VM 'a' and VM 'b' of .*::test_larger take 384 MiB and 2 vCPUs: more memory than all machines "
        r"together may have here \(300 MiB\)",
        r"SKIPPED .*VM 'shared' of fixture 'shared' takes 192 MiB and 1 vCPU, and 192 of 300 MiB are taken\. It does ",
    ):
        result.stdout.re_match_lines([line])
    result = pytester.runpytest_subprocess(*options, "--kvm-strict")
    result.assert_outcomes(failed=2, errors=2)
    assert not ledger.exists()


LASTING = """
import time
from pathlib import Path

import pytest

from pytest_kvm.errors import BudgetExceeded

REFUSED = Path({folder!r}) / "refused"

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared", image=None, memory="64M")

def test_it(request):
    try:
        request.getfixturevalue("shared")
    except BudgetExceeded as error:
        assert "this run has machines until it ends itself" in str(error)
        REFUSED.touch()
    else:
        while not REFUSED.exists():
            time.sleep(0.01)
"""


def test_workers_do_not_wait_for_the_end_of_their_own_session(pytester: pytest.Pytester, ledger: Path) -> None:
    pytester.makepyfile(LASTING.format(folder=str(pytester.path)))
    options = ["-n2", "--dist=each", "--kvm-memory-budget=300M", "-p", "no:cacheprovider"]
    pytester.runpytest_subprocess(*options, timeout=240).assert_outcomes(passed=2)
    assert (pytester.path / "refused").exists()
    assert not ledger.exists()


def test_a_wait_is_interrupted(pytester: pytest.Pytester, ledger: Path) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.vm(image=None)\ndef test_it(vm): pass\n")
    with closing(Contender(ledger, 400)) as other:
        other.do("take", "a", 400)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kvm-memory-budget=400M"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdout is not None
            line = next(line for line in session.stdout if line.startswith("kvm: VM"))
            assert "test_it waits for 384 MiB and 1 vCPU: 400 of 400 MiB" in line
            session.send_signal(signal.SIGINT)
            assert session.wait(timeout=60) == pytest.ExitCode.INTERRUPTED
        assert [path.name for path in ledger.iterdir()] == held(ledger)
        assert len(held(ledger)) == 1
