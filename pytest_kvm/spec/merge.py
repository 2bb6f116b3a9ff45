"""Levels of markers, nearer ones over farther ones, become the spec of each machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import check_values
from pytest_kvm.spec.contradictions import check_together
from pytest_kvm.spec.fields import CHECKS
from pytest_kvm.spec.reference import holds_reference, replace_references
from pytest_kvm.spec.vm import VMSpec, check_fields, from_folder, resolve

Lookup = Callable[[str], object]
_Properties = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Layer:
    """One marker: ``fields`` as written, ``base`` for relative paths, the ``name`` that it declares."""

    fields: Mapping[str, object]
    base: Path | None = None
    name: str | None = None


# All markers of one level (module, class, function …), in the order in which they apply, the strongest last.
Level = Sequence[Layer]


def names(levels: Sequence[Level]) -> list[str]:
    """Return the names of the declared machines, in order; empty when no marker has a name."""
    return list(dict.fromkeys(layer.name for level in levels for layer in level if layer.name is not None))


def layers_for(name: str | None, levels: Sequence[Level]) -> list[Layer]:
    """Return the layers that apply to a machine, farthest first; within a level unnamed before named ones."""
    chosen: list[Layer] = []
    for level in levels:
        chosen += [layer for layer in level if layer.name is None]
        chosen += [layer for layer in level if layer.name is not None and layer.name == name]
    return chosen


def check_levels(levels: Sequence[Level]) -> None:
    """Check each layer, and each machine's layers together, as far as it is possible before setup.

    Raises SpecError.
    """
    for level in levels:
        for layer in level:
            check_fields(layer.fields)
    declared: list[str | None] = [*names(levels)]
    for name in declared or [None]:
        together: dict[str, object] = {}
        for layer in layers_for(name, levels):
            together |= layer.fields
        check_together(together)


def merge_layers(defaults: VMSpec, layers: Sequence[Layer], lookup: Lookup) -> VMSpec:
    """Return the spec that the layers make of ``defaults``: values replace, ``append`` adds, ``properties`` do by name.

    ``lookup`` returns the value of a fixture. Raises SpecError, for contradictions on the merged spec only.
    """
    merged: dict[str, object] = {}
    bases: dict[str, Path | None] = {}
    resolved = resolve(defaults, lookup)
    append = [resolved.append]
    properties = {name: dict(given) for name, given in resolved.properties.items()}
    for layer in layers:
        check_fields(layer.fields)
        for keyword, value in layer.fields.items():
            if keyword == "append":
                append.append(str(_resolved("append", value, lookup)))
            elif keyword == "properties":
                for name, given in cast("_Properties", _resolved(keyword, value, lookup)).items():
                    properties.setdefault(name, {}).update(given)
            else:
                merged[keyword], bases[keyword] = value, layer.base
    for keyword, value in merged.items():
        merged |= from_folder({keyword: _resolved(keyword, value, lookup)}, bases[keyword])
    merged["append"] = " ".join(part for part in append if part)
    merged["properties"] = properties
    return resolved.replace(**merged)  # type: ignore[arg-type]  # checked there


def merge(defaults: VMSpec, levels: Sequence[Level], lookup: Lookup) -> dict[str, VMSpec]:
    """Return the spec of each declared machine by its name; without a named marker it is the default one.

    Raises SpecError.
    """
    declared = names(levels) or [defaults.name]
    return {
        name: merge_layers(defaults, [*layers_for(name, levels), Layer({"name": name})], lookup) for name in declared
    }


def _resolved(keyword: str, value: object, lookup: Lookup) -> object:
    if not holds_reference(value):
        return value
    resolved = replace_references(value, lookup)
    check_values("vm", {keyword: resolved}, CHECKS)
    return resolved


def layer_of(args: Sequence[object], kwargs: Mapping[str, object], base: Path | None) -> Layer:
    """Return the layer that a marker with these arguments is; raises SpecError when its shape is wrong."""
    if len(args) > 1:
        given = ", ".join(repr(arg) for arg in args)
        raise SpecError(f"vm({given}): a marker declares one machine; write one vm marker for each name")
    if args and isinstance(args[0], SpecError):
        raise args[0]
    if args and "name" in kwargs:
        raise SpecError(f"vm({args[0]!r}, name={kwargs['name']!r}): give the name once", keyword="name")
    fields = {keyword: value for keyword, value in kwargs.items() if keyword != "name"}
    if not args and "name" not in kwargs:
        return Layer(fields, base)
    name = args[0] if args else kwargs["name"]
    check_values("vm", {"name": name}, CHECKS)
    if not isinstance(name, str):
        raise SpecError(f"vm({name!r}): a name is text, not the name of a fixture", keyword="name", value=name)
    return Layer(fields, base, name)
