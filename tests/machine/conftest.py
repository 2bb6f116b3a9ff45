"""What the tests with real machines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, VMFactory


@pytest.fixture(scope="session")
def shared(vm_session_factory: VMFactory) -> VM:
    """One machine for all tests that leave it as it was."""
    return vm_session_factory("shared", smp=2)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A disk image of the user's."""
    path = tmp_path / "given.raw"
    path.write_bytes(b"given".ljust(1 << 20, b"\0"))
    return path
