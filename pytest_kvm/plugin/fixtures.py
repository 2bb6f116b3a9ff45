"""The fixtures; what they need is imported when one is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.plugin.artifacts import ARTIFACTS
from pytest_kvm.plugin.launching import QEMU, close_launcher
from pytest_kvm.plugin.options import OPTIONS, default_spec
from pytest_kvm.plugin.sessions import SESSION_MACHINES
from pytest_kvm.plugin.starting import variant_of
from pytest_kvm.plugin.variants import kernel_of, qemu_of
from pytest_kvm.plugin.verdicts import POOL, allowances

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.plugin.factories import Pool, VMFactory
    from pytest_kvm.spec.vm import VMSpec

# pytest shows no frame of this module in tracebacks.
__tracebackhide__ = True


@pytest.fixture(scope="session")
def vm_defaults(pytestconfig: pytest.Config) -> VMSpec:
    """What every machine is unless its marker says otherwise; may be overridden in the root conftest.py."""
    return default_spec(pytestconfig.stash[OPTIONS])


@pytest.fixture(scope="session")
def _vm_qemu(request: pytest.FixtureRequest) -> Iterator[None]:
    """The QEMU that the machines run with; tests run once for each of several --kvm-qemu."""
    config = request.config
    config.stash[QEMU] = qemu_of(request)
    yield
    if len(config.stash[OPTIONS].qemu) > 1:
        close_launcher(config)  # the next one has other machines made ahead, and other templates


@pytest.fixture(scope="session")
def _vm_kernel(request: pytest.FixtureRequest) -> str | None:
    """The kernel of the machines that name none; tests run once for each of several --kvm-kernel."""
    return kernel_of(request)


@pytest.fixture
def _vm_round(request: pytest.FixtureRequest) -> int:
    """Which time it is that the test runs, with --kvm-repeat."""
    return int(getattr(request, "param", 1))


@pytest.fixture(scope="session")
def _vm_start(request: pytest.FixtureRequest, _vm_qemu: None, _vm_kernel: str | None) -> str | None:
    """How the machines begin that leave it open; tests run once for each with --kvm-start=both."""
    return variant_of(request)


@pytest.fixture
def vm_specs(request: pytest.FixtureRequest, vm_defaults: VMSpec) -> dict[str, VMSpec]:
    """What the test's markers ask for: a VMSpec for each declared machine, by its name."""
    from pytest_kvm.plugin.making import specs_of

    return specs_of(request, vm_defaults)


@pytest.fixture
def _vm_pool(request: pytest.FixtureRequest, _vm_start: str | None, _vm_kernel: str | None) -> Iterator[Pool]:
    """The machines of one test."""
    from pytest_kvm.plugin.making import pool_for_test

    pool = request.node.stash[POOL] = pool_for_test(request, _vm_start, _vm_kernel)
    request.config.stash[ARTIFACTS].follow(pool)
    yield pool
    pool.close(partial(allowances, request.node))


@pytest.fixture
def vms(request: pytest.FixtureRequest, vm_specs: Mapping[str, VMSpec], _vm_pool: Pool) -> Mapping[str, VM]:
    """The machines that the test's vm markers declare, by their names."""
    from pytest_kvm.plugin.making import make_declared

    return MappingProxyType(make_declared(request.node, vm_specs, _vm_pool))


@pytest.fixture
def vm(request: pytest.FixtureRequest, vm_specs: Mapping[str, VMSpec], _vm_start: str | None) -> VM:
    """A virtual machine for this test alone, as its vm markers declare it."""
    if len(vm_specs) != 1:
        from pytest_kvm.plugin.declaration import two_machines

        raise two_machines(list(vm_specs))
    # Not an argument: no machine is made when there are several.
    machines: Mapping[str, VM] = request.getfixturevalue("vms")
    return next(iter(machines.values()))


@pytest.fixture
def vm_factory(
    request: pytest.FixtureRequest, vm_defaults: VMSpec, vm_specs: Mapping[str, VMSpec], _vm_pool: Pool
) -> VMFactory:
    """A function that makes machines for this test: ``vm_factory(memory="512M")``, also with a name first.

    Its fields are added to those of the test's markers; a name that a marker declares is that machine.
    """
    from pytest_kvm.plugin.making import factory_for_test

    return factory_for_test(request, vm_defaults, vm_specs, _vm_pool)


@pytest.fixture(scope="session")
def vm_session_factory(
    request: pytest.FixtureRequest, vm_defaults: VMSpec, _vm_start: str | None, _vm_kernel: str | None
) -> Iterator[VMFactory]:
    """A function that makes machines for the whole session; markers do not reach them."""
    from pytest_kvm.plugin.making import factory_for_session, pool_for_session

    pool = pool_for_session(request, _vm_start, _vm_kernel)
    yield factory_for_session(request, vm_defaults, pool)
    try:
        pool.close(partial(allowances, request.session))
    finally:
        request.config.stash[SESSION_MACHINES].clear()
