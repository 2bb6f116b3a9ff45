"""Wrong declarations: one readable line each, at collection, and the rest of the file goes on."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Scene

WRONG = {
    "@pytest.mark.vm(memmory='1G')\ndef test_1(vm): ...": (
        "vm(memmory=…): unknown keyword 'memmory'; did you mean 'memory'?"
    ),
    "@pytest.mark.vm(smp='two')\ndef test_2(vm): ...": (
        "vm(smp='two'): expected a number of CPUs or QEMU's text such as '4,sockets=1,cores=2,threads=2', got 'two'"
    ),
    "@pytest.mark.vm(smp=0)\ndef test_3(vm): ...": "vm(smp=0): cpus must be at least 1, got 0",
    "@pytest.mark.vm(hostfwd=8080)\ndef test_4(vm): ...": (
        "vm(hostfwd=8080): expected a list of ports, got 8080 (int); write hostfwd=[8080]"
    ),
    "@pytest.mark.vm(hostfwd=[70000])\ndef test_5(vm): ...": (
        "vm(hostfwd=[70000]): the guest's port must be from 1 to 65535, got 70000"
    ),
    "@pytest.mark.vm(image=None, ready='shell')\ndef test_6(vm): ...": (
        "vm(image=None, ready='shell'): without an image there is no shell, SSH or agent that we know; "
        "use 'login' or a compiled pattern"
    ),
    "@pytest.mark.vm(drives=[Drive(size='1G', cache='fast')])\ndef test_7(vm): ...": (
        "Drive(cache='fast'): unknown value 'fast'; valid are none, writeback, writethrough, directsync or unsafe"
    ),
    "@pytest.mark.vm('a')\n@pytest.mark.vm('b')\ndef test_8(vm): ...": (
        "vm: this test declares 2 machines, 'a' and 'b'; the fixture vm is for one, use vms"
    ),
    "@pytest.mark.vm(memory='1G')\ndef test_9(): ...": (
        "vm(memory=…): the test has a vm marker but uses no VM fixture; take vm, vms or vm_factory as an argument"
    ),
    "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.vm(timeout=0))])\ndef test_10(vm, n): ...": (
        "vm(timeout=0): expected a number of seconds, more than 0, got 0"
    ),
    "@pytest.mark.vm(drives=[Drive(sise='1G')])\ndef test_11(vm): ...": (
        "Drive(sise=…): unknown keyword 'sise'; did you mean 'size'?"
    ),
    "@pytest.mark.vm('a', 'b')\ndef test_12(vms): ...": (
        "vm('a', 'b'): a marker declares one machine; write one vm marker for each name"
    ),
}
RIGHT = """
@pytest.mark.vm(memory="1G", drives=[Drive(size="1G")])
def test_right(vm): assert vm.spec.memory == "1G"

def test_without(): ...
"""


def _ids() -> list[str]:
    numbered = [f"test_{number}" for number in range(1, len(WRONG) + 1)]
    return ["test_10[1]" if name == "test_10" else name for name in numbered]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_is_one_line_and_the_rest_is_collected(scene: Scene, workers: tuple[str, ...]) -> None:
    pytester = scene("\n".join(WRONG) + RIGHT)
    result = pytester.runpytest("--continue-on-collection-errors", "-rN", *workers)
    result.assert_outcomes(passed=2, errors=len(WRONG))
    lines = [line for line in result.outlines if line.startswith("test_it.py::")]
    assert sorted(lines) == sorted(
        f"test_it.py::{name}: {text}" for name, text in zip(_ids(), WRONG.values(), strict=True)
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.no_fnmatch_line("*Traceback*")


def test_the_session_stops_without_the_option(scene: Scene) -> None:
    result = scene("\n".join(WRONG) + RIGHT).runpytest()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=len(WRONG))


def test_a_marker_of_the_module_covers_helpers_without_a_machine(scene: Scene) -> None:
    result = scene("pytestmark = pytest.mark.vm(memory='1G')\ndef test_helper(): ...").runpytest()
    result.assert_outcomes(passed=1)


def test_a_marked_test_with_request_is_judged_after_it_ran(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def by_name(request):
    return request.getfixturevalue

@pytest.mark.vm(memory="1G")
def test_asks(request):
    assert request.getfixturevalue("vm").spec.memory == "1G"

@pytest.mark.vm(memory="1G")
def test_asks_through_a_fixture(by_name):
    by_name("vms")

@pytest.mark.vm(memory="1G")
def test_never_asks(request): ...

@pytest.mark.vm(memory="1G")
def test_request_is_not_the_users(tmp_path): ...
""")
    result = pytester.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_request_is_not_the_users: vm(memory=…): the test has a vm marker but uses no VM *",
            "*test_never_asks*",
            "vm(memory=…): the test has a vm marker but uses no VM fixture; *",
        ]
    )


def test_a_marker_cannot_reach_session_machines(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory()

@pytest.mark.vm(memory="1G")
def test_it(shared): ...

@pytest.mark.vm
def test_marked_for_selection(shared): ...
""")
    result = pytester.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*vm(memory=…): the marker does not reach machines of vm_session_factory; *"])


@pytest.mark.parametrize("place", ["module", "folder"])
def test_defaults_are_the_root_conftests(scene: Scene, place: str) -> None:
    override = "@pytest.fixture(scope='session')\ndef vm_defaults(vm_defaults): return vm_defaults\n"
    pytester = scene()
    folder = pytester.mkpydir("sub")
    head = "import pytest\n"
    (folder / "conftest.py").write_text(head + (override if place == "folder" else ""))
    (folder / "test_sub.py").write_text(head + (override if place == "module" else "") + "def test_it(vm): ...\n")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    where = "sub" if place == "folder" else "sub/test_sub.py"
    result.stdout.fnmatch_lines(
        [f"sub/test_sub.py::test_it: vm_defaults: overridden in {where}, but it holds for the whole session; *"]
    )


def test_an_overridden_vm_fixture_may_choose_among_several(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def vm(vms): return vms["a"]

@pytest.mark.vm("a")
@pytest.mark.vm("b")
def test_it(vm): assert vm.name == "a"
""")
    pytester.runpytest().assert_outcomes(passed=1)
