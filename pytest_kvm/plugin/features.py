"""The marker ``vm_features``: a test runs once for each combination of a virtio device's properties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.wording import shown

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

FEATURES = "vm_features"
_ARGUMENT = "_vm_features_{}"
_KEYWORDS = ("vm", "untaken")


@dataclass(frozen=True)
class Cell:
    """One combination: the ``properties`` of a device of a machine (None: of all), ``left`` those of other cells."""

    device: str
    properties: Mapping[str, object]
    left: tuple[str, ...]
    machine: str | None
    untaken: tuple[str, ...]

    @property
    def label(self) -> str:
        """It as a test's id."""
        from pytest_kvm.machine.devices.expecting import told

        return f"{self.device}-{told(self.properties) or 'defaults'}"

    @property
    def mark(self) -> pytest.MarkDecorator:
        """What it asks of the machine."""
        names = [] if self.machine is None else [self.machine]
        return pytest.mark.vm.with_args(*names, properties={self.device: dict(self.properties)})


def add_features(metafunc: pytest.Metafunc) -> None:
    """Apply the ``vm_features`` marks of a test."""
    for number, mark in enumerate(metafunc.definition.iter_markers(FEATURES)):
        argument = _ARGUMENT.format(number)
        metafunc.fixturenames.append(argument)
        try:
            cells = list(_cells(mark))
        except SpecError as error:  # for the check that knows the test to raise
            metafunc.parametrize(argument, [pytest.param(None, marks=pytest.mark.vm.with_args(error), id="wrong")])
            continue
        metafunc.parametrize(argument, [pytest.param(cell, marks=cell.mark, id=cell.label) for cell in cells])


def judge_features(item: pytest.Item, machines: Iterable[VM]) -> None:
    """Check a test's machines against its combinations; raises NegotiationError."""
    cells = list(_cells_of(item))
    if not cells:
        return
    from pytest_kvm.machine.devices.expecting import check_features

    for vm in machines:
        for cell in cells:
            if cell.machine in (None, vm.name) and vm.running:
                check_features(vm, cell.device, cell.properties, left=cell.left, untaken=cell.untaken)


def _cells_of(item: pytest.Item) -> Iterator[Cell]:
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec is not None else ():
        if isinstance(value, Cell):
            yield value


def _cells(mark: pytest.Mark) -> Iterator[Cell]:
    """Yield the cells of a mark; raises SpecError."""
    unknown = mark.kwargs.keys() - set(_KEYWORDS)
    if len(mark.args) != 2 or unknown:
        given = [*map(shown, mark.args), *(f"{key}={shown(value)}" for key, value in mark.kwargs.items())]
        raise SpecError(
            f"{FEATURES}: expected the id of a device and a list of combinations, vm= and untaken=, "
            f"got {FEATURES}({', '.join(given)})"
        )
    device, several = mark.args
    if not isinstance(device, str):
        raise SpecError(f"{FEATURES}({shown(device)}, …): expected the id of a device such as 'net0'", value=device)
    if isinstance(several, (str, Mapping)) or not isinstance(several, Sequence) or not several:
        raise SpecError(
            f"{FEATURES}({device!r}, {shown(several)}): expected a list of combinations such as "
            "'packed=on,event_idx=off' or {'packed': True}",
            value=several,
        )
    read = [_read(device, each) for each in several]
    axes = list(dict.fromkeys(key for each in read for key in each))
    machine = mark.kwargs.get("vm")
    untaken = mark.kwargs.get("untaken", ())
    for each in read:
        left = tuple(key for key in axes if key not in each)
        yield Cell(device, each, left, machine, tuple([untaken] if isinstance(untaken, str) else untaken))


def _read(device: str, given: object) -> dict[str, object]:
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return dict(given)
    if not isinstance(given, str):
        raise SpecError(
            f"{FEATURES}({device!r}, [{shown(given)}]): expected properties such as 'packed=on,event_idx=off' or "
            "{'packed': True}",
            value=given,
        )
    read: dict[str, object] = {}
    for part in filter(None, given.split(",")):
        key, equals, value = part.partition("=")
        read[key] = {"on": True, "off": False}.get(value, value) if equals else True
    return read
