"""The levels that a test's markers stand on: module, base class, class, function, parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from pytest_kvm.plugin.collection import MARKER
from pytest_kvm.spec.merge import Layer, layer_of


def levels_of(item: pytest.Item) -> list[list[Layer]]:
    """Return the layers of each level, farthest first.

    A level's marks come in the order in which they apply: the one that pytest calls the closest comes last.
    Raises SpecError when a marker's arguments have the wrong shape.
    """
    return [
        [layer_of(mark.args, mark.kwargs, item.path.parent) for mark in reversed(marks)]
        for node in item.listchain()
        if isinstance(node, (pytest.Item, pytest.Collector))
        for marks in _levels_of_node(node)
        if marks
    ]


def _levels_of_node(node: pytest.Item | pytest.Collector) -> Iterator[list[pytest.Mark]]:
    """Yield the marks of the levels that one node stands for, farthest first."""
    known: list[pytest.Mark] = []
    if isinstance(node, pytest.Class):
        # pytest's own_markers has the base classes' marks too, but does not say which class each is from.
        for cls in reversed(node.obj.__mro__):
            marks = _stored(cls.__dict__.get("pytestmark", []))
            known += marks
            yield marks
    elif isinstance(node, pytest.Function):
        of_parameters = list(node.callspec.marks) if hasattr(node, "callspec") else []
        decorators = _stored(getattr(node.obj, "pytestmark", []))
        known = [*decorators, *of_parameters]
        yield decorators
        yield _ours(of_parameters)
    # What a conftest or a fixture added to the node is nearest. Marks are told apart by identity: equal ones
    # may stand on different levels.
    identities = {id(mark) for mark in known}
    yield [mark for mark in _ours(node.own_markers) if id(mark) not in identities]


def _stored(pytestmark: object) -> list[pytest.Mark]:
    """Return our marks of a ``pytestmark`` attribute: one or several, decorators or bare."""
    several = pytestmark if isinstance(pytestmark, (list, tuple)) else [pytestmark]
    marks = [item.mark if isinstance(item, pytest.MarkDecorator) else item for item in several]
    return _ours(mark for mark in marks if isinstance(mark, pytest.Mark))


def _ours(marks: Iterable[pytest.Mark]) -> list[pytest.Mark]:
    return [mark for mark in marks if mark.name == MARKER]
