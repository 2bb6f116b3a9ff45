"""What can be wrong with a test's declaration, as far as it shows at collection."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.plugin.collection import MARKED_FIXTURES, UNUSED, own_marks
from pytest_kvm.plugin.marks import levels_of
from pytest_kvm.plugin.requirements import check_requirements
from pytest_kvm.plugin.verdicts import check_allowances
from pytest_kvm.spec.merge import check_levels, names
from pytest_kvm.spec.wording import listed

OUR_FIXTURES = "pytest_kvm.plugin.fixtures"


def check_declaration(item: pytest.Item, fixtures: frozenset[str]) -> None:
    """Check what a test declares; ``fixtures`` are the VM fixtures that it uses. Raises SpecError."""
    levels = levels_of(item)
    check_levels(levels)
    check_allowances(item)
    check_requirements(item)
    if not fixtures & MARKED_FIXTURES and own_marks(item):
        _without_fixture(item, fixtures)
    declared = names(levels)
    if len(declared) > 1 and "vm" in fixtures and is_ours(item, "vm") and is_ours(item, "vm_specs"):
        raise two_machines(declared)
    _check_defaults(item)


def two_machines(declared: Sequence[str]) -> SpecError:
    """Return the error of a test that asks for ``vm`` and declares several machines."""
    *most, last = (repr(name) for name in declared)
    return SpecError(
        f"vm: this test declares {len(declared)} machines, {', '.join(most)} and {last}; "
        "the fixture vm is for one, use vms"
    )


def _without_fixture(item: pytest.Item, fixtures: frozenset[str]) -> None:
    fields = [keyword for mark in own_marks(item) for keyword in mark.kwargs]
    if "vm_session_factory" in fixtures:
        if fields:
            raise SpecError(
                f"vm({fields[0]}=…): the marker does not reach machines of vm_session_factory; call that with the field"
            )
        return
    subject = f"vm({fields[0]}=…)" if fields else "vm"
    error = SpecError(
        f"{subject}: the test has a vm marker but uses no VM fixture; "
        f"take {listed(['vm', 'vms', 'vm_factory'])} as an argument"
    )
    if not _may_request(item):
        raise error
    item.stash[UNUSED] = error


def _may_request(item: pytest.Item) -> bool:
    """Return whether the test or a fixture of the user's takes ``request``, so may get fixtures by name."""
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return True
    if "request" in info.argnames:
        return True
    definitions = [definition for several in info.name2fixturedefs.values() for definition in several]
    return any(
        "request" in definition.argnames and not definition.func.__module__.startswith("_pytest.")
        for definition in definitions
    )


def is_ours(item: pytest.Item, fixture: str) -> bool:
    """Return whether the test sees our fixture of this name, rather than one that overrides it."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.get(fixture, ()) if info is not None else ()
    return not definitions or definitions[-1].func.__module__ == OUR_FIXTURES


def _check_defaults(item: pytest.Item) -> None:
    """Check that ``vm_defaults`` is overridden only where all tests see it: the root conftest, a plugin."""
    info = getattr(item, "_fixtureinfo", None)
    for definition in info.name2fixturedefs.get("vm_defaults", ()) if info is not None else ():
        if definition.baseid not in ("", "."):
            raise SpecError(
                f"vm_defaults: overridden in {definition.baseid}, but it holds for the whole session; "
                f"override it in {item.config.rootpath / 'conftest.py'} only"
            )
