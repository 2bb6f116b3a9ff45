"""A test fails when a machine of its own got into trouble meanwhile, whether or not the test noticed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.plugin.options import OPTIONS, splat_pattern
from pytest_kvm.plugin.outcome import PLACELESS
from pytest_kvm.plugin.sessions import SESSION_MACHINES

if TYPE_CHECKING:
    from pytest_kvm.machine.verdicts.finding import Finding
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.plugin.factories import Pool  # noqa: F401 - in the stash key

ALLOW = "vm_allow_splat"
# The patterns that are no failure on the machine of a name.
Allowances = Callable[[str], Iterable[re.Pattern[str]]]
POOL = pytest.StashKey["Pool"]()
# pytest shows no frame of this module in tracebacks.
__tracebackhide__ = True


def judge_call(item: pytest.Item, error: BaseException | None) -> None:
    """Fail the test, whose body has just ended with this ``error``, for what its machines found.

    Its own error stays the one that is raised, with a note; but a skip hides nothing.
    """
    machines = _machines(item)
    if not machines:
        return
    from pytest_kvm.machine.verdicts.settling import settle

    for vm in machines:
        doubt = settle(vm)
        if doubt:
            text = f"VM {vm.name!r}: {doubt}; what the guest said in the last moment of the test may be judged late"
            item.add_report_section("call", "kvm", text)
    judge(item, machines, error)


def judge_between(item: pytest.Item, error: BaseException | None) -> None:
    """The same for what came since, of machines that outlive the test; in its teardown."""
    shared = item.config.stash[SESSION_MACHINES].machines
    for vm in shared:
        vm.receive()
    judge(item, shared, error)


def once(item: pytest.Item, error: BaseException) -> BaseException:
    """Return what a teardown has raised, without errors that tell the same twice: a fixture's, and its machine's."""
    if not isinstance(error, BaseExceptionGroup) or POOL not in item.stash:
        return error
    findings = [finding for vm in item.stash[POOL].all_machines for finding in vm.watcher.findings.all]
    kept: list[BaseException] = []
    known: set[int] = set()
    for each in reversed(error.exceptions):  # a machine's fixture ends last, and comes first
        behind = {id(finding) for finding in findings if finding.is_behind(each)}
        if not behind or behind - known:
            kept.insert(0, each)
        known |= behind
    return kept[0] if len(kept) == 1 else error.derive(kept)


def tell(item: pytest.Item, error: BaseException) -> None:
    """Take note of an error that says what a machine found: it is not said again."""
    _tell(_machines(item), error)


def _tell(machines: Iterable[VM], error: BaseException) -> None:
    for vm in machines:
        vm.watcher.findings.tell(error)


def judge(item: pytest.Item, machines: Sequence[VM], error: BaseException | None) -> None:
    """Raise what these machines found and nobody was told of, or add it to the error that there is."""
    if error is not None:
        _tell(machines, error)
    found = [finding for vm in machines for finding in untold(vm, partial(allowances, item))]
    if not found:
        return
    errors = [finding.error() for finding in found]
    if error is None or isinstance(error, pytest.skip.Exception):
        error = item.stash[PLACELESS] = errors.pop(0)
        add_notes(error, errors)
        raise error from None
    add_notes(error, errors)


def add_notes(error: BaseException, others: Iterable[BaseException]) -> None:
    """Let an error say what else went wrong."""
    for other in others:
        error.add_note(f"and {type(other).__name__}: {other}")


def untold(vm: VM, allowances: Allowances) -> list[Finding]:
    """Return what the machine found that is not allowed, and nobody was told of; that has happened now."""
    found = vm.watcher.findings.untold()
    allowed = allowances(vm.name) if found else []
    for finding in found:
        finding.told = True
    return [finding for finding in found if finding.fatal or not any(finding.matches(pattern) for pattern in allowed)]


def allowances(node: pytest.Item | pytest.Session, name: str) -> list[re.Pattern[str]]:
    """Return the patterns of splats that are no failure on this machine: all levels' marks' and the options'."""
    marks = [_allowance(mark) for mark in node.iter_markers(ALLOW)]
    return [*node.config.stash[OPTIONS].allow_splat, *(pattern for pattern, vm in marks if vm in (None, name))]


def check_allowances(item: pytest.Item) -> None:
    """Raise SpecError when one of the test's marks cannot be read."""
    for mark in item.iter_markers(ALLOW):
        _allowance(mark)


def _allowance(mark: pytest.Mark) -> tuple[re.Pattern[str], str | None]:
    pattern, vm = mark.args[0] if len(mark.args) == 1 else None, mark.kwargs.get("vm")
    known = not mark.kwargs.keys() - {"vm"} and isinstance(vm, (str, type(None)))
    if not isinstance(pattern, (str, re.Pattern)) or not known:
        given = [*map(repr, mark.args), *(f"{key}={value!r}" for key, value in mark.kwargs.items())]
        raise SpecError(
            f"{ALLOW}: expected {ALLOW}(pattern), and vm='NAME' for one machine of several; "
            f"got {ALLOW}({', '.join(given)})"
        )
    return splat_pattern(pattern, ALLOW), vm


def _machines(item: pytest.Item) -> list[VM]:
    pool = item.stash.get(POOL, None)
    own = pool.machines if pool is not None else []
    return [*own, *item.config.stash[SESSION_MACHINES].machines]
