"""Layers, farthest first, become specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.merge import Layer, check_levels, layer_of, merge
from pytest_kvm.spec.reference import FromFixture
from pytest_kvm.spec.vm import VMSpec


def lookup(name: str) -> object:
    return {"tail": "quiet", "number": 5}[name]


def test_values_replace_and_append_adds() -> None:
    levels = [
        [Layer({"memory": "1G", "append": "a", "hostfwd": [1, 2]})],
        [Layer({"smp": 4}, name="b"), Layer({"smp": 2, "append": FromFixture("tail"), "hostfwd": [3]})],
        [Layer({}, name="a")],
    ]
    specs = merge(VMSpec(append="first", cpu="max"), levels, lookup)
    assert list(specs) == ["b", "a"]
    assert [(spec.name, spec.smp) for spec in specs.values()] == [("b", 4), ("a", 2)]
    assert specs["a"].append == "first a quiet"
    assert (specs["a"].memory, specs["a"].cpu, specs["a"].hostfwd) == ("1G", "max", (3,))


def test_without_names_there_is_one() -> None:
    assert merge(VMSpec(), [], lookup) == {"vm": VMSpec()}


def test_paths_start_at_the_folder_of_the_level() -> None:
    levels = [
        [Layer({"kernel": "vmlinuz", "initrd": "/abs", "image": "tiny"}, Path("/one"))],
        [Layer({"drives": [Drive("a.img"), Drive(size="1M")], "cdrom": Path("cd.iso")}, Path("/two"))],
    ]
    spec = merge(VMSpec(), levels, lookup)["vm"]
    assert (spec.kernel, spec.initrd, spec.cdrom) == (Path("/one/vmlinuz"), Path("/abs"), Path("/two/cd.iso"))
    assert [drive.file for drive in spec.drives] == [Path("/two/a.img"), None]
    assert spec.image == "tiny"
    assert [keyword for keyword, _ in spec.paths()] == ["kernel", "initrd", "cdrom", "drives"]


def test_contradictions_are_judged_on_the_merged_spec() -> None:
    levels = [[Layer({"nics": [], "hostfwd": ()})], [Layer({"nics": None, "hostfwd": [22]})]]
    assert merge(VMSpec(), levels, lookup)["vm"].hostfwd == (22,)
    with pytest.raises(SpecError, match="cannot forward a port"):
        merge(VMSpec(hostfwd=[22]), [[Layer({"nics": []})]], lookup)
    with pytest.raises(SpecError, match="cannot forward a port"):
        check_levels([[Layer({"nics": []})], [Layer({"hostfwd": [22]})]])


def test_values_of_fixtures_are_checked() -> None:
    with pytest.raises(SpecError, match=r"vm\(append=5\): expected text"):
        merge(VMSpec(), [[Layer({"append": FromFixture("number")})]], lookup)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (("a", "b"), {}, "vm('a', 'b'): a marker declares one machine; write one vm marker for each name"),
        (("a",), {"name": "b"}, "vm('a', name='b'): give the name once"),
        ((5,), {}, "vm(name=5): expected a name (letters, digits, '-', '.', '_'; at most 40), got 5 (int)"),
        ((FromFixture("x"),), {}, "vm(FromFixture('x')): a name is text, not the name of a fixture"),
    ],
)
def test_wrong_marks(args: tuple[object, ...], kwargs: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        layer_of(args, kwargs, None)
    assert str(caught.value) == text


def test_a_mark_is_a_layer() -> None:
    assert layer_of(["a"], {"smp": 2}, Path("/x")) == Layer({"smp": 2}, Path("/x"), "a")
    assert layer_of([], {"name": "a"}, None).name == "a"
    assert layer_of([], {}, None) == Layer({})
