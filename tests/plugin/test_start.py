"""``--kvm-start`` and ``start=``, and which machine is made ahead of its test."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Scene, events

PREPARED = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    stand_in.note("prepared", [(spec.name, str(spec.memory)) for spec in stand_in.PREPARED])
"""


def prepared(pytester: pytest.Pytester) -> str:
    (line,) = [line for line in events(pytester) if line.startswith("prepared ")]
    return line.removeprefix("prepared ")


TWICE = """
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared")

@pytest.fixture
def mine(vm_factory):
    return vm_factory("mine")

def test_vm(vm):
    print("START", vm.spec.start)

def test_vms(vms):
    print("START", *(vm.spec.start for vm in vms.values()))

def test_factories(mine, shared):
    print("START", mine.spec.start, shared.spec.start)

@pytest.mark.parametrize("n", [1])
def test_parameters(vm, n):
    print("START", vm.spec.start)

def test_without():
    pass
"""


def test_both(scene: Scene) -> None:
    result = scene(TWICE).runpytest("--kvm-start=both", "-v", "-rP", "-p", "no:randomly")
    result.assert_outcomes(passed=9)
    ids = sorted(line.split(" ")[0].partition("::")[2] for line in result.outlines if " PASSED" in line)
    assert ids == [
        "test_factories[boot]",
        "test_factories[clone]",
        "test_parameters[boot-1]",
        "test_parameters[clone-1]",
        "test_vm[boot]",
        "test_vm[clone]",
        "test_vms[boot]",
        "test_vms[clone]",
        "test_without",
    ]
    starts = sorted(line for line in result.outlines if line.startswith("START"))
    assert starts == sorted(["START boot", "START auto"] * 3 + ["START boot boot", "START auto auto"])


def test_both_by_ini(scene: Scene) -> None:
    scene("def test_vm(vm): pass").runpytest("-o", "kvm_start=both").assert_outcomes(passed=2)


def test_both_in_parallel(scene: Scene) -> None:
    scene("def test_vm(vm): pass").runpytest("--kvm-start=both", "-n", "2").assert_outcomes(passed=2)


def test_a_marker_that_says_how(scene: Scene) -> None:
    pytester = scene("""
@pytest.mark.vm(start="boot")
class TestIt:
    def test_boot(self, vm):
        assert vm.spec.start == "boot"

    @pytest.mark.vm(start="clone")
    def test_clone(self, vm):
        assert vm.spec.start == "clone"
""")
    result = pytester.runpytest("--kvm-start=both", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_boot[[]boot] PASSED*", "*test_clone[[]clone] PASSED*"])
    pytester.runpytest("-v").stdout.fnmatch_lines(["*test_boot PASSED*", "*test_clone PASSED*"])


def test_a_machine_that_is_asked_for_at_run_time(scene: Scene) -> None:
    result = scene("""
def test_vm(request):
    request.getfixturevalue("vm")
""").runpytest("--kvm-start=both")
    result.assert_outcomes(failed=1)
    reason = "--kvm-start=both: the test asks for a machine at run time (request.getfixturevalue), so nobody knew that "
    assert any(
        line.endswith(f"{reason}it has to run twice; take the fixture as an argument") for line in result.outlines
    )


@pytest.mark.parametrize("start", ["auto", "boot", "clone"])
def test_one_way(scene: Scene, start: str) -> None:
    scene(f"def test_vm(vm): assert vm.spec.start == {start!r}").runpytest(f"--kvm-start={start}").assert_outcomes(
        passed=1
    )


@pytest.mark.parametrize("options", [["--kvm-start=twice"], ["-o", "kvm_start=twice"]])
def test_a_way_that_there_is_not(scene: Scene, options: list[str]) -> None:
    result = scene("def test_vm(vm): pass").runpytest(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*kvm*start*twice*auto*boot*clone*both*"])


def test_a_wrong_value_in_a_marker(scene: Scene) -> None:
    result = scene("""
@pytest.mark.vm(start="cloned")
def test_vm(vm): pass
""").runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*vm(start='cloned'): *did you mean 'clone'?*"])


def test_the_next_tests_machine_is_made_ahead(scene: Scene) -> None:
    pytester = scene(
        """
def test_first(vm): pass

@pytest.mark.vm(memory="300M")
def test_second(vm): pass

@pytest.mark.vm("named")
def test_third(vms): pass

def test_without(): pass

def test_fourth(vm): pass
""",
        conftest=PREPARED,
    )
    pytester.runpytest().assert_outcomes(passed=5)
    assert prepared(pytester) == "[('vm', '300M'), ('named', 'None'), ('vm', 'None')]"


UNCERTAIN = """
@pytest.fixture
def given(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(512))
    return path

def test_first(vm): pass

@pytest.mark.vm("a")
@pytest.mark.vm("b")
def test_two(vms): pass

@pytest.mark.vm(start="boot")
def test_boot(vm): pass

@pytest.mark.vm(autostart=False)
def test_off(vm): pass

@pytest.mark.vm(drives=[Drive(FromFixture("given"), format="raw")])
def test_fixture(vm): pass

@pytest.mark.vm(drives=[Drive("there.raw", format="raw")])
def test_file(vm): pass

@pytest.mark.vm(hostfwd=["tcp:127.0.0.1:8080-:80"])
def test_port(vm): pass

def test_factory(vm_factory): vm_factory()

@pytest.mark.skip
def test_skipped(vm): pass

class TestOverride:
    @pytest.fixture
    def vm_specs(self, vm_specs): return vm_specs

    def test_specs(self, vm): pass

class TestAnother:
    @pytest.fixture
    def vm(self): return None

    def test_vm(self, vm): pass
"""


def test_none_is_made_ahead_that_is_not_certain(scene: Scene) -> None:
    pytester = scene(UNCERTAIN, conftest=PREPARED)
    (pytester.path / "there.raw").write_bytes(bytes(512))
    pytester.runpytest().assert_outcomes(passed=10, skipped=1)
    assert prepared(pytester) == "[]"


def test_both_makes_only_clones_ahead(scene: Scene) -> None:
    pytester = scene("def test_first(vm): pass\ndef test_vm(vm): assert vm.spec.start != 'boot'", conftest=PREPARED)
    pytester.runpytest("--kvm-start=both").assert_outcomes(passed=3, failed=1)
    # Sorted by the session-wide parameter: two boots, then two clones.
    assert prepared(pytester) == "[('vm', 'None'), ('vm', 'None')]"
