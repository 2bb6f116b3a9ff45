"""The guests as fixtures: disk images that are made once and kept in the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.images.builtin.tiny import tiny_image
from tests.guests import built_kernel, cirros, debian, debug, kernels
from tests.guests.keeping import kept
from tests.guests.tools import MissingTool

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cirros_disk() -> Path:
    """A disk image with CirrOS's manners; it boots by itself and finds its seed on any disk."""
    tiny = tiny_image()
    sources = [_HERE / "cirros.py", _HERE / "cpio.py", _HERE / "tools.py", cirros.ROOTFS]
    try:
        return kept("cirros", cirros.make_cirros, sources, made_from=str(tiny.initrd))
    except MissingTool as error:
        pytest.fail(f"{error} (tox installs it)")


@pytest.fixture(scope="session")
def debian_disk() -> Path:
    """A disk image of Debian with cloud-init; only root can make it."""
    if os.geteuid() != 0:
        pytest.skip("making a disk image of Debian takes root")
    try:
        return kept("debian", debian.make_debian, [_HERE / "debian.py", _HERE / "tools.py"])
    except MissingTool as error:
        pytest.fail(f"{error} (tox installs it)")


@pytest.fixture(scope="session")
def installed_kernel() -> Path:
    """A folder with another kernel than the built-in guest's, and its modules."""
    try:
        return kept("kernel", kernels.make_installed, [_HERE / "kernels.py"])
    except MissingTool as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def built_kernel_tree() -> Path:
    """A build tree of a kernel with KUnit and gcov; building it takes minutes."""
    sources = [_HERE / "built_kernel.py", built_kernel.CONFIG, built_kernel.MODULES, _HERE / "tools.py"]
    try:
        return kept("built-kernel", built_kernel.make_tree, sources)
    except MissingTool as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def debuggable_kernel(installed_kernel: Path) -> Path:
    """The same kernel with its debug information, which takes 280 MB to fetch and 700 MB to keep."""

    def make(folder: Path) -> Path:
        return debug.make_debuggable(folder, installed_kernel)

    try:
        return kept("debuggable", make, [_HERE / "debug.py"], made_from=str(installed_kernel))
    except MissingTool as error:
        pytest.skip(str(error))
