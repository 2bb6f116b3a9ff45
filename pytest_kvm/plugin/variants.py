"""Every test with a machine, several times: with each QEMU and kernel, booted and cloned, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.starting import FIXTURE, run_both

# Private fixtures behind every fixture that makes machines.
QEMU = "_vm_qemu"
KERNEL = "_vm_kernel"
ROUND = "_vm_round"


def add_variants(metafunc: pytest.Metafunc) -> None:
    """Let a test with a machine run once for each combination of what the options ask for."""
    if FIXTURE not in metafunc.fixturenames:
        return
    options = metafunc.config.stash[OPTIONS]
    if len(options.qemu) > 1:
        metafunc.parametrize(QEMU, options.qemu, ids=_ids(options.qemu), indirect=True, scope="session")
    if len(options.kernel) > 1:
        metafunc.parametrize(KERNEL, options.kernel, ids=labels(options.kernel), indirect=True, scope="session")
    run_both(metafunc)
    if options.repeat > 1:
        if ROUND not in metafunc.fixturenames:
            metafunc.fixturenames.append(ROUND)
        rounds = range(1, options.repeat + 1)
        metafunc.parametrize(ROUND, rounds, ids=[f"{number}of{options.repeat}" for number in rounds], indirect=True)


def qemu_of(request: pytest.FixtureRequest) -> str | None:
    """Return the QEMU that a test's machines run with, None for the usual one."""
    param: str | None = getattr(request, "param", None)
    options = request.config.stash[OPTIONS]
    return param if param is not None else (options.qemu[0] if options.qemu else None)


def kernel_of(request: pytest.FixtureRequest) -> str | None:
    """Return the kernel that a test's machines boot which name none, None for their image's."""
    param: str | None = getattr(request, "param", None)
    options = request.config.stash[OPTIONS]
    return param if param is not None else (options.kernel[0] if options.kernel else None)


def labels(names: Sequence[str]) -> list[str]:
    """Return ``6.12.0-rc1-5``, release and number of the build, or as much of the paths as tells them apart."""
    labels = [_label(name) for name in names]
    return labels if len(set(labels)) == len(labels) else _distinct(names)


def _label(name: str) -> str:
    from pytest_kvm.images.kernels.source import find_kernel
    from pytest_kvm.spec.vm import BUILT_IN

    if name.startswith(BUILT_IN):
        return name
    try:
        return find_kernel(Path(name)).label
    except (SpecError, OSError):
        return Path(name).name  # its tests will tell


def _ids(names: Sequence[str]) -> list[str]:
    """Return ``qemu-7.2.22``, or as much of the paths as tells them apart."""
    versions = [_version(name) for name in names]
    if all(versions) and len(set(versions)) == len(versions):
        return [f"qemu-{version}" for version in versions]
    return _distinct(names)


def _distinct(names: Sequence[str]) -> list[str]:
    """Return as much of the paths, from their ends, as tells them apart."""
    parts = [Path(name).parts for name in names]
    for length in range(1, max(map(len, parts)) + 1):
        ids = ["-".join(part.strip("/") for part in path[-length:]).strip("-") for path in parts]
        if len(set(ids)) == len(ids):
            return ids
    return [f"{Path(name).name}-{number}" for number, name in enumerate(names, 1)]  # one of them is given twice


def _version(name: str) -> str:
    from pytest_kvm.host.cache import cache_dir
    from pytest_kvm.qemu.binary import find_qemu

    try:
        return find_qemu(name, memory=cache_dir() / "host").version_text
    except HostError:  # its tests will tell
        return ""
