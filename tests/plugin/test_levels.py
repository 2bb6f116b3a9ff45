"""Markers of all levels, merged: nearer ones win."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Scene, events


def test_nearer_levels_win_and_append_adds_up(scene: Scene) -> None:
    pytester = scene(
        """
pytestmark = pytest.mark.vm(memory="1M", smp=1, cpu="max", append="module")

@pytest.mark.vm(memory="2M", smp=2, append="base")
class Base: ...

@pytest.mark.vm(memory="3M", append="class")
class TestIt(Base):
    def test_class(self, vm):
        assert (vm.spec.memory, vm.spec.smp, vm.spec.cpu) == ("3M", 2, "max")
        assert vm.spec.append == "conftest module base class"

    @pytest.mark.vm(memory="4M", append="function")
    @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.vm(memory="5M", append="param")), 2])
    def test_function(self, vm, n):
        assert vm.spec.memory == ("5M" if n == 1 else "4M")
        assert vm.spec.append.endswith("function param" if n == 1 else "function")

    class TestNested:
        @pytest.mark.vm(smp=8)
        def test_nested(self, vm):
            assert (vm.spec.memory, vm.spec.smp) == ("3M", 8)

def test_module(vm):
    assert vm.spec.memory == "1M"
    assert vm.spec.boot == "n"
""",
        conftest="""
import pytest
@pytest.fixture(scope="session")
def vm_defaults(vm_defaults):
    return vm_defaults.replace(memory="9M", boot="n", append="conftest")
""",
    )
    pytester.runpytest().assert_outcomes(passed=5)


def test_within_a_level_unnamed_comes_before_named_whatever_the_order(scene: Scene) -> None:
    pytester = scene("""
@pytest.mark.vm("server", smp=2)
@pytest.mark.vm("client")
@pytest.mark.vm(smp=4, memory="1M")
def test_two(vms):
    assert list(vms) == ["server", "client"]
    assert [vm.name for vm in vms.values()] == ["server", "client"]
    assert [vm.spec.smp for vm in vms.values()] == [2, 4]
    assert [vm.spec.memory for vm in vms.values()] == ["1M", "1M"]

@pytest.mark.vm("server", smp=2)
class TestLevels:
    @pytest.mark.vm(smp=4)
    def test_a_nearer_unnamed_one_wins(self, vm):
        assert vm.spec.smp == 4

@pytest.mark.vm(smp=3)
@pytest.mark.vm(smp=4)
def test_the_mark_nearest_to_the_function_wins(vm):
    assert vm.spec.smp == 4
""")
    pytester.runpytest().assert_outcomes(passed=3)
    assert events(pytester)[2:6] == ["create server 1M", "create client 1M", "close client", "close server"]


def test_marks_added_while_running_are_nearest(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def small(request):
    request.node.add_marker(pytest.mark.vm(memory="5M"))

@pytest.mark.vm(memory="6M")
def test_it(small, vm):
    assert vm.spec.memory == "5M"
""")
    pytester.runpytest().assert_outcomes(passed=1)


def test_relative_paths_start_at_the_folder_of_their_level(scene: Scene) -> None:
    pytester = scene(
        conftest="""
import pytest
from pytest_kvm import Share, VirtioPmem
@pytest.fixture(scope="session")
def vm_defaults(vm_defaults):
    shares = [Share("data", "/mnt")]
    return vm_defaults.replace(initrd="root.cpio", shares=shares, devices=[VirtioPmem("root.pmem")])
"""
    )
    folder = pytester.mkpydir("sub")
    pytester.mkdir("data")
    pytester.makefile(".cpio", root="")
    pytester.makefile(".pmem", root="")
    for name in ("vmlinuz", "a.qcow2", "own.img"):
        (folder / name).touch()
    (folder / "test_paths.py").write_text("""
import pytest
from pathlib import Path
from pytest_kvm import Drive, FromFixture
HERE = Path(__file__).parent

@pytest.fixture
def own(): return "own.img"

@pytest.mark.vm(kernel="vmlinuz", drives=[Drive("a.qcow2")], image=FromFixture("own"))
def test_paths(vm):
    assert vm.spec.kernel == HERE / "vmlinuz"
    assert vm.spec.drives[0].file == HERE / "a.qcow2"
    assert vm.spec.initrd == HERE.parent / "root.cpio"
    assert vm.spec.shares[0].host == HERE.parent / "data"
    assert vm.spec.devices[0].file == HERE.parent / "root.pmem"
    assert vm.spec.image == HERE / "own.img"

def test_a_missing_file(vm_factory):
    with pytest.raises(ValueError, match=r"vm\\(cdrom='.*/sub/no.iso'\\): there is no such file"):
        vm_factory(cdrom="no.iso")
""")
    pytester.runpytest().assert_outcomes(passed=2)


def test_values_of_fixtures_are_checked_at_setup(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def size(): return "64M"

@pytest.fixture
def wrong(): return "huge"

@pytest.fixture
def many(size): return [Drive(size=size), Drive(size=size)]

@pytest.mark.vm(memory=FromFixture("size"), drives=[Drive(size=FromFixture("size"))])
def test_right(vm):
    assert (vm.spec.memory, vm.spec.drives[0].size) == ("64M", "64M")

@pytest.mark.vm(drives=FromFixture("many"))
def test_whole(vm):
    assert len(vm.spec.drives) == 2

@pytest.mark.vm(memory=FromFixture("wrong"))
def test_wrong(vm): ...

@pytest.mark.vm(drives=[Drive(size=FromFixture("wrong"))])
def test_wrong_inside(vm): ...

@pytest.mark.vm(memory=FromFixture("nobody"))
def test_no_such_fixture(vm): ...
""")
    result = pytester.runpytest("-rE")
    result.assert_outcomes(passed=2, errors=3)
    result.stdout.fnmatch_lines(
        [
            "ERROR test_it.py::test_wrong - Failed: vm(memory='huge'): expected a number of MiB or *",
            "ERROR test_it.py::test_wrong_inside - Failed: Drive(size='huge'): expected a size *",
            "ERROR test_it.py::test_no_such_fixture - Failed: FromFixture('nobody'): there is no fixture 'nobody' *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*direct cause*")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_vm_parametrize(scene: Scene, workers: tuple[str, ...]) -> None:
    pytester = scene("""
@vm_parametrize("cache", ["none", "writeback"], lambda cache: dict(drives=[Drive(size="32M", cache=cache)]))
def test_takes_it(vm, cache):
    assert vm.spec.drives[0].cache == cache

@vm_parametrize("size", [("1M", 2)], lambda size: dict(memory=size[0], smp=size[1]))
@vm_parametrize("cache", ["none"], lambda cache: dict(drives=[Drive(size="32M", cache=cache)]))
class TestClass:
    def test_does_not(self, vm):
        assert vm.spec.drives[0].cache == "none" and vm.spec.memory == "1M"

@vm_parametrize("cache", ["none", "fast"], lambda cache: dict(drives=[Drive(size="32M", cache=cache)]))
def test_wrong_value(vm): ...

@vm_parametrize("cache", [1], lambda cache: None)
def test_wrong_builder(vm): ...
""")
    result = pytester.runpytest("-v", "--continue-on-collection-errors", *workers)
    result.assert_outcomes(passed=4, errors=2)
    ids = ("takes_it[[]none]", "takes_it[[]writeback]", "does_not[[]*1M-2*]", "wrong_value[[]none]")
    for name in ids:
        result.stdout.fnmatch_lines([f"*test_{name}*"])
    result.stdout.fnmatch_lines(["test_it.py::test_wrong_value[[]fast]: Drive(cache='fast'): unknown value 'fast'; *"])
    result.stdout.fnmatch_lines(["*vm_parametrize(1): expected a mapping of the vm marker's fields *, got None"])
