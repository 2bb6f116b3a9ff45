"""Any value for any keyword is a SpecError, or a spec that a machine can be made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm import Drive, Nic, SpecError, VMSpec
from pytest_kvm.machine.planning import complete, make_plan
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.spec import drive, fields, image, nic
from pytest_kvm.spec.boot import parse_boot
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.merge import layer_of, merge_layers
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.size import parse_memory, parse_size
from pytest_kvm.spec.smp import parse_smp
from pytest_kvm.spec.vm import from_folder, resolve
from tests.hostile import TEXTS, VALUES, Unshowable, endless, nested
from tests.qemu.fakes import binary

MAKERS: dict[str, Callable[..., object]] = {"vm": VMSpec, "Drive": Drive, "Nic": Nic, "Image": Image}
NEEDED: dict[str, dict[str, object]] = {
    "vm": {},
    "Drive": {"file": "file"},
    "Nic": {},
    "Image": {"disk": "disk", "ssh_user": "root"},
}
CHECKS = {"vm": fields.CHECKS, "Drive": drive.CHECKS, "Nic": nic.CHECKS, "Image": image.CHECKS}


def told(error: SpecError) -> None:
    """A wrong declaration is told in one line, which anybody's terminal can show."""
    text = str(error)
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000
    text.encode()


@settings(max_examples=300)
@given(st.data(), VALUES)
def test_any_value_of_any_keyword(data: st.DataObject, value: object) -> None:
    call = data.draw(st.sampled_from(list(MAKERS)))
    keyword = data.draw(st.sampled_from(list(CHECKS[call])))
    given_ = {keyword: value} if keyword in {"size", "kernel"} else {**NEEDED[call], keyword: value}
    try:
        made = MAKERS[call](**given_)
    except SpecError as error:
        told(error)
        return
    repr(made)
    if isinstance(made, VMSpec) and not holds_reference(value):
        usable(made)


def usable(spec: VMSpec) -> None:
    """A spec that is right has a plan and a command line, or says why it has not."""
    with contextlib.suppress(SpecError):
        spec = resolve(spec, lambda _: "x", base=Path("/tests"))
        list(spec.paths())
        guest = Image(kernel="/k", shell=True) if spec.image is not None else None
        plan = make_plan(complete(spec, guest), guest, "tcg")
        for word in build(plan, binary()):
            assert "\0" not in word
            word.encode(errors="surrogateescape")


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(list(fields.CHECKS)), VALUES, max_size=3), VALUES)
def test_any_marker(given_: dict[str, object], name: object) -> None:
    for args in ((), (name,)):
        try:
            layer = layer_of(args, given_, Path("/tests"))
            merge_layers(VMSpec(), [layer], lambda _: "x")
        except SpecError as error:
            told(error)


@given(TEXTS)
def test_any_text(text: str) -> None:
    for parse in (parse_boot, parse_hostfwd, parse_memory, parse_size, parse_smp):
        try:
            parse(text)
        except SpecError as error:
            told(error)


@given(TEXTS)
def test_a_text_of_ours_means_the_same(text: str) -> None:
    for parse in (parse_boot, parse_hostfwd, parse_smp):
        with contextlib.suppress(SpecError):
            parsed = parse(text)
            assert str(parsed).isprintable() or parse is parse_boot  # its picture is a file
            assert parse(str(parsed)) == parsed


@given(VALUES)
def test_paths_from_a_folder(value: object) -> None:
    for keyword in ("kernel", "cdrom", "image", "user_data"):
        try:
            fields.CHECKS[keyword](value)
        except ValueError:
            continue
        except RecursionError:
            continue  # check_values tells
        if not holds_reference(value):
            from_folder({keyword: value}, Path("/tests"))


@pytest.mark.parametrize("make", [Unshowable, nested, endless])
@pytest.mark.parametrize(("call", "keyword"), [(call, keyword) for call in MAKERS for keyword in CHECKS[call]])
def test_what_can_hardly_be_looked_at(call: str, keyword: str, make: Callable[[], object]) -> None:
    for value in (make(), [make()], {"key": make()}):
        with pytest.raises(SpecError) as caught:
            MAKERS[call](**{**NEEDED[call], keyword: value})
        told(caught.value)


@pytest.mark.parametrize("call", MAKERS)
def test_a_keyword_called_self(call: str) -> None:
    with pytest.raises(SpecError, match="unknown keyword 'self'"):
        MAKERS[call](**{**NEEDED[call], "self": 1})


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"timeout": 10**400}, "seconds are more than 1000000000, the longest that is waited"),
        ({"meta_data": {"a": []}}, None),
        ({"kernel": "\ud800"}, "cannot be written in utf-8, which command lines are in here"),
        ({"append": "a\0b"}, "has a NUL character"),
        ({"boot": "splash=a\0b"}, "has a NUL character"),
        ({"smp": "²"}, "expected a number of CPUs"),
        ({"smp": "--4"}, "expected a number of CPUs"),
        ({"memory": "9" * 5000}, "expected a size"),
        ({"memory": "٣G"}, "expected a size"),
        ({"hostfwd": ["tcp::-:" + "9" * 5000]}, "expected a guest port"),
    ],
)
def test_what_is_said(given_: dict[str, object], reason: str | None) -> None:
    if reason is None:
        VMSpec(**given_)  # type: ignore[arg-type]
        return
    with pytest.raises(SpecError, match=reason):
        VMSpec(**given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["a=b", "a,b", "driver", "", "a b", "a\n", "id,drive"])
def test_properties_are_no_way_to_others(key: str) -> None:
    for make in (lambda: Nic(properties={key: 1}), lambda: Drive("x", properties={key: 1})):
        with pytest.raises(SpecError):
            make()
