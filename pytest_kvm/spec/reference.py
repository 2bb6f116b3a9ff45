"""Values that exist only at run time: the name of a fixture instead of a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from pytest_kvm.spec.wording import about, expected, expected_type


@dataclass(frozen=True, repr=False)
class FixtureReference:
    """What ``FromFixture`` returns: the name of a fixture that gives the value when the test is set up."""

    name: str

    def __post_init__(self) -> None:
        with about(repr(self), keyword=None, value=self.name):
            if not isinstance(self.name, str):
                raise expected_type("the name of a fixture", self.name)
            if not self.name.isidentifier():
                raise expected("the name of a fixture", self.name)

    def __repr__(self) -> str:
        return f"FromFixture({self.name!r})"


def FromFixture(name: str) -> Any:
    """Return a stand-in for the value of the fixture ``name``.

    It may be the value of any field of a marker, an item of a list there, or a field of Drive and Nic. It
    is replaced, and the value checked, when the test is set up. It is typed as Any, as
    ``dataclasses.field`` is, because it stands where any type may stand. Raises SpecError when ``name``
    cannot be the name of a fixture.
    """
    return FixtureReference(name)


def holds_reference(value: object) -> bool:
    """Return whether the value is, or has inside, the name of a fixture."""
    if isinstance(value, FixtureReference):
        return True
    if isinstance(value, (list, tuple)):
        return any(holds_reference(item) for item in value)
    if isinstance(value, Mapping):
        return any(holds_reference(item) for item in value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return any(holds_reference(getattr(value, field.name)) for field in fields(value) if field.init)
    return False


def replace_references(value: object, lookup: Callable[[str], object]) -> object:
    """Return the value with every fixture's name replaced by what ``lookup`` returns for it."""
    if isinstance(value, FixtureReference):
        return lookup(value.name)
    if not holds_reference(value):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(replace_references(item, lookup) for item in value)
    if isinstance(value, Mapping):
        return {key: replace_references(item, lookup) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return replace(
            value,
            **{key: replace_references(item, lookup) for key, item in held.items() if holds_reference(item)},
        )
    return value
