"""A guest that makes QEMU tell news without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest

from pytest_kvm.errors import WaitTimeout
from pytest_kvm.qemu import qmp as module
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.qmp import QMP, Event
from pytest_kvm.waiting import Watch


@pytest.fixture
def io() -> Iterator[IOThread]:
    with closing(IOThread()) as thread:
        yield thread


def tell(io: IOThread, qmp: QMP, *names: str) -> None:
    """Let QEMU tell something."""

    async def listener() -> AsyncIterator[Event]:
        for name in names:
            yield {"event": name, "data": {}}
            await asyncio.sleep(0)

    io.run(qmp._collect(listener()))


def test_the_last_events_are_kept(io: IOThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_LIMIT", 100)
    heard: list[Event] = []
    qmp = QMP(name="vm", io=io, watch=Watch(), on_event=heard.append)
    tell(io, qmp, *["RESET"] * 1000)
    with qmp.expect_event("SHUTDOWN", timeout=0) as expected:
        tell(io, qmp, *["ACPI_DEVICE_OST"] * 70, "SHUTDOWN", *["ACPI_DEVICE_OST"] * 20)
    assert expected.event is not None
    assert 50 <= len(qmp.events) <= 100
    assert len(heard) == 1091
    with pytest.raises(WaitTimeout) as caught, qmp.expect_event("STOP", timeout=0):
        tell(io, qmp, *["RESET"] * 40)
    assert str(caught.value) == (
        f"VM 'vm': no QMP event STOP within 0 s; events instead: 10 others, {', '.join(['RESET'] * 30)}"
    )
