"""Wrong declarations become one collection error for each test.

An exception from here would abort the whole module (or be an internal error under xdist), so a failed
report is sent
for the test, and the test is left out.
"""

from __future__ import annotations

import pytest

from pytest_kvm.errors import SpecError

MARKER = "vm"
# Fixtures that the marker reaches …
MARKED_FIXTURES = frozenset({"vm", "vms", "vm_factory", "vm_specs"})
# … and all that give a test a machine, or its description.
VM_FIXTURES = MARKED_FIXTURES | {"vm_session_factory"}

WRONG = pytest.StashKey[bool]()
# The error of a marked test without a VM fixture that may still ask for one through ``request``.
UNUSED = pytest.StashKey[SpecError]()


def check_item(item: pytest.Item) -> None:
    """Check a collected test: report what is wrong with its declaration, or select it with ``-m vm``."""
    fixtures = VM_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    if not fixtures and not own_marks(item):
        return
    from pytest_kvm.plugin.declaration import check_declaration  # sessions without a machine do without

    try:
        check_declaration(item, fixtures)
    except SpecError as error:
        item.stash[WRONG] = True
        # xdist shows equal texts of its workers once, so the text must tell tests apart.
        report = pytest.CollectReport(item.nodeid, "failed", f"{item.nodeid}: {error}", [])
        item.ihook.pytest_collectreport(report=report)
        return
    if fixtures:
        item.add_marker(MARKER)


def remove_wrong(items: list[pytest.Item]) -> None:
    """Leave out the tests that were reported."""
    if any(WRONG in item.stash for item in items):
        items[:] = [item for item in items if WRONG not in item.stash]


def own_marks(item: pytest.Item) -> list[pytest.Mark]:
    """Return the marks of the test itself: its decorators, its parameters', and those added to it."""
    return [mark for mark in item.own_markers if mark.name == MARKER]
