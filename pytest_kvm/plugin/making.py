"""How the fixtures make machines of what the markers, the factories' calls and the defaults say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Unpack

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.host.request import Holder
from pytest_kvm.plugin.cases import CASES
from pytest_kvm.plugin.coverage import COVERAGE
from pytest_kvm.plugin.factories import Pool, VMFactory
from pytest_kvm.plugin.features import judge_features
from pytest_kvm.plugin.launching import launcher_of
from pytest_kvm.plugin.marks import levels_of
from pytest_kvm.plugin.requirements import require_guest, require_host
from pytest_kvm.plugin.sessions import SESSION_MACHINES
from pytest_kvm.plugin.signals import SIGNALS
from pytest_kvm.spec.fields import VMFields
from pytest_kvm.spec.merge import Layer, layer_of, layers_for, merge, merge_layers
from pytest_kvm.spec.vm import VMSpec, from_folder
from pytest_kvm.spec.wording import listed, shown

if TYPE_CHECKING:
    from pytest_kvm.machine.snapshots import Snapshot
    from pytest_kvm.machine.vm import VM

# The session's, once a test has needed them.
DEFAULTS = pytest.StashKey[VMSpec]()
# What a machine may have otherwise than the one whose snapshot it begins with.
BESIDE_SNAPSHOT = ("hostfwd", "internet", "timeout", "autostart")


def pool_for_test(request: pytest.FixtureRequest, start: str | None, kernel: str | None) -> Pool:
    """Return an empty pool; ``start`` and ``kernel`` are those of machines that leave it open (None: as they say)."""
    request.config.stash[SIGNALS].heed()
    holder = Holder(request.node.nodeid)
    cases = request.config.stash[CASES]
    launcher = partial(launcher_of, request.config)
    made = _made_known(request.config, shared=False)
    return Pool(launcher, holder=lambda: holder, observer=cases, start=start, kernel=kernel, made=made)


def pool_for_session(request: pytest.FixtureRequest, start: str | None, kernel: str | None) -> Pool:
    """Return an empty pool for machines that stay until the session ends; all else as above."""
    request.config.stash[SIGNALS].heed()
    machines = request.config.stash[SESSION_MACHINES]

    def holder() -> Holder:
        fixture = machines.asking()
        return Holder(f"fixture '{fixture}'" if fixture is not None else "a session", lasting=True)

    cases = request.config.stash[CASES]
    launcher = partial(launcher_of, request.config)
    made = _made_known(request.config, shared=True)
    return Pool(launcher, holder=holder, observer=cases, start=start, kernel=kernel, made=made)


def _made_known(config: pytest.Config, *, shared: bool) -> Callable[[VM], None] | None:
    """Return who is told of machines that are made, None if nobody wants to know."""
    coverage = config.stash[COVERAGE]
    return partial(coverage.begin, shared=shared) if coverage is not None else None


def specs_of(request: pytest.FixtureRequest, defaults: object) -> dict[str, VMSpec]:
    """Return what the test's markers ask for, by the machines' names."""
    base = request.config.stash[DEFAULTS] = checked_defaults(defaults, request)
    return merge(base, levels_of(request.node), lookup_of(request))


def make_declared(item: pytest.Item, specs: Mapping[str, VMSpec], pool: Pool) -> dict[str, VM]:
    """Make the declared machines, in order; skips the test when something is lacking that it requires."""
    require_host(item, partial(launcher_of, item.config))
    machines = pool.create_all(spec.replace(name=name) for name, spec in specs.items())
    require_guest(item, machines)
    judge_features(item, machines)
    return dict(zip(specs, machines, strict=True))


def factory_for_test(
    request: pytest.FixtureRequest, defaults: object, specs: Mapping[str, VMSpec], pool: Pool
) -> VMFactory:
    """Return what the fixture vm_factory hands out."""
    levels, lookup = levels_of(request.node), lookup_of(request)
    base = checked_defaults(defaults, request)
    require_host(request.node, partial(launcher_of, request.config))

    def make(name: str | None = None, /, *, snapshot: Snapshot | None = None, **fields: Unpack[VMFields]) -> VM:
        vm = create(name, snapshot=snapshot, **fields)
        require_guest(request.node, [vm])
        judge_features(request.node, [vm])
        return vm

    def create(name: str | None = None, /, *, snapshot: Snapshot | None = None, **fields: Unpack[VMFields]) -> VM:
        layer = layer_of([] if name is None else [name], fields, request.path.parent)
        if snapshot is not None:
            return _from_snapshot(pool, snapshot, layer, lookup)
        if layer.name is not None and layer.name in specs:
            return pool.create(merge_layers(specs[layer.name], [layer], lookup))
        return _made(pool, merge_layers(base, [*layers_for(None, levels), layer], lookup), layer.name)

    return make


def factory_for_session(request: pytest.FixtureRequest, defaults: object, pool: Pool) -> VMFactory:
    """Return what the fixture vm_session_factory hands out."""
    lookup, machines = lookup_of(request), request.config.stash[SESSION_MACHINES]
    base = checked_defaults(defaults, request)

    def make(name: str | None = None, /, *, snapshot: Snapshot | None = None, **fields: Unpack[VMFields]) -> VM:
        layer = layer_of([] if name is None else [name], fields, request.config.rootpath)
        if snapshot is not None:
            vm = _from_snapshot(pool, snapshot, layer, lookup)
        else:
            vm = _made(pool, merge_layers(base, [layer], lookup), layer.name)
        machines.add(vm)
        return vm

    return make


def _made(pool: Pool, spec: VMSpec, name: str | None, snapshot: Snapshot | None = None) -> VM:
    if name is None:
        return pool.create_next(spec, snapshot)
    return pool.create(spec.replace(name=name), snapshot)


def _from_snapshot(pool: Pool, snapshot: Snapshot, layer: Layer, lookup: Callable[[str], object]) -> VM:
    """Make a machine that is what the snapshot's was, but for what may differ. Raises SpecError for all else."""
    given = [field for field in layer.fields if field not in BESIDE_SNAPSHOT]
    if given:
        raise SpecError(
            f"vm({given[0]}=…, snapshot=…): a snapshot's machine is what it was; "
            f"only {listed(BESIDE_SNAPSHOT)} can be given beside it",
            keyword=given[0],
        )
    return _made(pool, merge_layers(snapshot.spec, [layer], lookup), layer.name, snapshot)


def checked_defaults(defaults: object, request: pytest.FixtureRequest) -> VMSpec:
    """Return the defaults, which the user may have overridden, with paths that start at the root folder."""
    if not isinstance(defaults, VMSpec):
        raise SpecError(f"vm_defaults: expected a VMSpec, got {shown(defaults)}; return vm_defaults.replace(...)")
    return defaults.replace(**from_folder(vars(defaults), request.config.rootpath))  # type: ignore[arg-type]


def lookup_of(request: pytest.FixtureRequest) -> Callable[[str], object]:
    """Return what gives the value of a fixture that FromFixture names."""

    def lookup(name: str) -> object:
        try:
            return request.getfixturevalue(name)
        except pytest.FixtureLookupError as error:
            if error.argname != name:
                raise
            raise SpecError(f"FromFixture({name!r}): there is no fixture '{name}' for this test") from None

    return lookup
