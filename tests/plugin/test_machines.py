"""The life of machines between fixtures: made, closed, skipped, broken."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Scene, events


def test_factories_add_to_the_markers(scene: Scene) -> None:
    pytester = scene("""
@pytest.mark.vm("server", memory="2M")
@pytest.mark.vm(memory="1M", append="a")
def test_it(vm_factory):
    first, second, server = vm_factory(append="b"), vm_factory(memory="3M"), vm_factory("server", smp=2)
    assert [vm.name for vm in (first, second, server)] == ["vm", "vm2", "server"]
    assert [vm.spec.memory for vm in (first, second, server)] == ["1M", "3M", "2M"]
    assert first.spec.append == "a b" and server.spec.smp == 2
    with pytest.raises(SpecError, match="there is a machine of this name already"):
        vm_factory("server")
    with pytest.raises(SpecError, match="did you mean 'memory'") as caught:
        vm_factory(memmory=1)
    assert caught.value.keyword == "memmory"

def test_wrong_call(vm_factory):
    vm_factory(smp="two")
""")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([">*vm_factory(smp=?two?)", "E*SpecError: vm(smp='two'): expected a number of *"])
    result.stdout.no_fnmatch_line("*plugin/making.py*")
    assert events(pytester)[4:] == ["close server", "close vm2", "close vm", "closed launcher"]


def test_factories_may_be_called_from_threads(scene: Scene) -> None:
    pytester = scene("""
from concurrent.futures import ThreadPoolExecutor
def test_it(vm_factory):
    with ThreadPoolExecutor() as pool:
        machines = list(pool.map(lambda memory: vm_factory(memory=memory), range(1, 9)))
    assert len({vm.name for vm in machines}) == 8
""")
    pytester.runpytest().assert_outcomes(passed=1)
    assert sum(line.startswith("close ") for line in events(pytester)) == 8


def test_vm_and_vms_are_the_same_objects(scene: Scene) -> None:
    pytester = scene("def test_it(vm, vms, vm_specs): assert vms == {'vm': vm} and vm_specs == {'vm': vm.spec}")
    pytester.runpytest().assert_outcomes(passed=1)


def test_every_machine_is_closed_even_when_one_fails(scene: Scene) -> None:
    pytester = scene("""
@pytest.mark.vm("a-untidy")
@pytest.mark.vm("b")
@pytest.mark.vm("c-untidy")
def test_it(vms): ...
""")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    assert events(pytester)[5:8] == ["close c-untidy", "close b", "close a-untidy"]
    result.stdout.fnmatch_lines(
        [
            "*TeardownError: VM 'c-untidy' left something behind",
            "*and TeardownError: VM 'a-untidy' left something behind",
        ]
    )


def test_machines_made_before_one_failed_are_closed(scene: Scene) -> None:
    pytester = scene("""
@pytest.mark.vm("a")
@pytest.mark.vm("b", image="stuck")
@pytest.mark.vm("c")
def test_it(vms): ...
""")
    pytester.runpytest().assert_outcomes(errors=1)
    assert events(pytester)[1:] == [
        "reserve a b c for test_it.py::test_it",
        "create a None",
        "release b",
        "release c",
        "close a",
        "closed launcher",
    ]


HOST = """
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory(image="missing")

@pytest.mark.vm(image="missing")
def test_setup(vm): ...
def test_call(vm_factory): vm_factory(image="missing")
def test_session(shared): ...
def test_session_again(shared): ...
def test_caught(vm_factory):
    with pytest.raises(HostError):
        vm_factory(image="missing")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_what_this_host_cannot_is_skipped(scene: Scene, workers: tuple[str, ...]) -> None:
    result = scene(HOST).runpytest("-rs", *workers)
    result.assert_outcomes(passed=1, skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*image 'missing' is not here*"])


def test_strict_makes_it_a_failure(scene: Scene) -> None:
    result = scene(HOST).runpytest("--kvm-strict", "-rA")
    result.assert_outcomes(passed=1, failed=1, errors=3)
    result.stdout.fnmatch_lines(["*image 'missing' is not here", "*fetch it (--kvm-strict)"])


def test_the_error_of_a_machine_points_at_the_users_line(scene: Scene) -> None:
    pytester = scene(
        """
@pytest.mark.vm(image="stuck")
def test_setup(vm): ...

def test_call(vm_factory):
    vm_factory(image="stuck")
"""
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines([">*vm_factory(image=?stuck?)", "E*BootTimeout: VM 'vm' did not become ready *"])
    result.stdout.no_fnmatch_line("*pytest_kvm/*")
    result.stdout.no_fnmatch_line("*deep inside*")
    pytester.runpytest("--full-trace").stdout.fnmatch_lines(["E*TimeoutError: deep inside"])


def test_what_the_users_error_comes_from_is_shown(scene: Scene) -> None:
    pytester = scene("""
def test_call(vm_factory):
    try:
        raise ValueError("mine")
    except ValueError:
        vm_factory(image="stuck")
""")
    pytester.runpytest().stdout.fnmatch_lines(["E*ValueError: mine", "E*BootTimeout: VM 'vm' did not become ready *"])


SHARED = """
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared")

@pytest.fixture(scope="session")
def other(vm_session_factory):
    return vm_session_factory("other")

@pytest.fixture
def through(shared): ...

def test_first(shared): ...
def test_breaks(shared): shared.broken = "the guest panicked"
def test_after(through): ...
def test_other(other): ...
def test_none(): ...
"""


def test_a_broken_session_machine_is_named(scene: Scene) -> None:
    pytester = scene(SHARED)
    result = pytester.runpytest("-rE")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "ERROR test_it.py::test_after - *MachineError: session machine 'shared' is broken "
            "since test_it.py::test_breaks: the guest panicked"
        ]
    )
    assert events(pytester)[3:] == ["close other", "close shared", "closed launcher"]


def test_an_overridden_vm_specs_decides(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def vm_specs(): return {"mine": VMSpec(memory="7M"), "yours": VMSpec()}

def test_two(vms): assert [vm.name for vm in vms.values()] == ["mine", "yours"]
def test_one(vm): ...
""")
    result = pytester.runpytest("-rE")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["ERROR*Failed: vm: this test declares 2 machines, 'mine' and 'yours'; *"])


def test_defaults_must_be_a_spec(scene: Scene) -> None:
    pytester = scene(
        "def test_it(vm): ...",
        conftest="import pytest\n@pytest.fixture(scope='session')\ndef vm_defaults(): return {}\n",
    )
    result = pytester.runpytest("-rE")
    result.stdout.fnmatch_lines(["ERROR*Failed: vm_defaults: expected a VMSpec, got {}; *"])
