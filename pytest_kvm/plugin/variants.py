"""Every test with a machine, several times: with each QEMU, booted and cloned, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.starting import FIXTURE, run_both

# Private fixtures behind every fixture that makes machines.
QEMU = "_vm_qemu"
ROUND = "_vm_round"


def add_variants(metafunc: pytest.Metafunc) -> None:
    """Let a test with a machine run once for each combination of what the options ask for."""
    if FIXTURE not in metafunc.fixturenames:
        return
    options = metafunc.config.stash[OPTIONS]
    if len(options.qemu) > 1:
        metafunc.parametrize(QEMU, options.qemu, ids=_ids(options.qemu), indirect=True, scope="session")
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


def _ids(names: Sequence[str]) -> list[str]:
    """Return ``qemu-7.2.22``, or as much of the paths as tells them apart."""
    versions = [_version(name) for name in names]
    if all(versions) and len(set(versions)) == len(versions):
        return [f"qemu-{version}" for version in versions]
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
