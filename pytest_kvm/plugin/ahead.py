"""While a test runs, the next one's machine is made, if it is certain which that will be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.plugin.launching import LAUNCHER
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.starting import FIXTURE
from pytest_kvm.plugin.variants import QEMU

if TYPE_CHECKING:
    from pytest_kvm.spec.vm import VMSpec

NEXT = pytest.StashKey[pytest.Item | None]()


def prepare_next(item: pytest.Item) -> None:
    """Begin to make the machine of the test that comes after ``item``."""
    following = item.stash.get(NEXT, None)
    # Before the first machine there is no launcher, and no template that is known to be there.
    if following is None or LAUNCHER not in item.config.stash:
        return
    spec = _certain_spec(following)
    if spec is not None and _parameter(following, QEMU) == _parameter(item, QEMU):
        item.config.stash[LAUNCHER].prepare(spec)


def _certain_spec(item: pytest.Item) -> VMSpec | None:
    """Return the spec of a test's only machine, None if there are several, or fixtures have a say in it."""
    from pytest_kvm.plugin.declaration import is_ours
    from pytest_kvm.plugin.making import DEFAULTS
    from pytest_kvm.plugin.marks import levels_of
    from pytest_kvm.spec.forward import parse_hostfwd
    from pytest_kvm.spec.merge import merge

    if not {"vm", "vms"}.intersection(getattr(item, "fixturenames", ())) or item.get_closest_marker("skip"):
        return None
    if item.config.stash[OPTIONS].kernel:  # a file of the user's
        return None
    if DEFAULTS not in item.config.stash or not all(is_ours(item, name) for name in ("vm", "vms", "vm_specs")):
        return None
    try:
        specs = merge(item.config.stash[DEFAULTS], levels_of(item), _unknown)
    except SpecError:
        return None  # the test itself tells, or a fixture has to be asked
    if len(specs) != 1 or _parameter(item, FIXTURE) == "boot":
        return None
    spec = next(iter(specs.values()))
    # A file of the user's may be written until then, by the test that runs now or by the next one's fixtures; a port
    # that was chosen may be taken.
    fixed_port = any(parse_hostfwd(value).host_port for value in spec.hostfwd)
    certain = spec.autostart and spec.start != "boot" and not fixed_port and not any(spec.paths())
    return spec if certain else None


def _parameter(item: pytest.Item, name: str) -> object:
    return item.callspec.params.get(name) if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None


def _unknown(name: str) -> object:
    raise SpecError(f"the value of fixture {name!r} is not known yet")
