"""``vm_parametrize``: the same test on machines that differ in one thing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import pytest

from pytest_kvm.errors import SpecError

MARKER = "vm_parametrize"

Value = TypeVar("Value")


def vm_parametrize(
    argname: str, values: Iterable[Value], builder: Callable[[Value], Mapping[str, object]]
) -> pytest.MarkDecorator:
    """Return a decorator that runs a test, or a class of tests, once for each value.

    ``builder`` makes the fields of the ``vm`` marker of a value; the test may take the value as the argument
    ``argname``, or not. Ids are made of the values::

        @vm_parametrize("disk", ["32M", "64M"], lambda size: {"drives": [Drive(size=size)]})
        def test_disk(vm): ...
    """
    mark: pytest.MarkDecorator = getattr(pytest.mark, MARKER)
    return mark(argname, list(values), builder)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Apply the ``vm_parametrize`` marks of a test."""
    for mark in metafunc.definition.iter_markers(MARKER):
        argname, values, builder = mark.args
        if argname not in metafunc.fixturenames:
            # pytest takes parameters for arguments only; this one is the marker's, the test need not take it.
            metafunc.fixturenames.append(argname)
        parameters = [pytest.param(value, marks=_vm_mark(builder, value), id=_id(value)) for value in values]
        metafunc.parametrize(argname, parameters)


def _vm_mark(builder: Callable[[object], Mapping[str, object]], value: object) -> pytest.MarkDecorator:
    """Return the value's mark; an error is put into it, for the check that knows the test to raise."""
    try:
        fields = builder(value)
    except SpecError as error:
        return pytest.mark.vm.with_args(error)
    if not isinstance(fields, Mapping) or not all(isinstance(keyword, str) for keyword in fields):
        from pytest_kvm.spec.wording import shown

        reason = f"expected a mapping of the vm marker's fields from the builder, got {shown(fields)}"
        return pytest.mark.vm.with_args(SpecError(f"vm_parametrize({shown(value)}): {reason}"))
    return pytest.mark.vm.with_args(**fields)


def _id(value: object) -> str | None:
    """Return a readable id, or None where pytest makes a good one itself."""
    if isinstance(value, os.PathLike):
        return os.path.basename(os.fspath(value)) or None
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_id(item) or item}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return "-".join(_id(item) or str(item) for item in value)
    return None
