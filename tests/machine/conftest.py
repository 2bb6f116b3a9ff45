"""One machine for all tests that leave it as it was."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, VMFactory


@pytest.fixture(scope="session")
def shared(vm_session_factory: VMFactory) -> VM:
    return vm_session_factory("shared", smp=2)
