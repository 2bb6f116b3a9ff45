"""What tests of a running QEMU need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_kvm.qemu.iothread import IOThread


@pytest.fixture
def io() -> Iterator[IOThread]:
    thread = IOThread()
    yield thread
    thread.close()
