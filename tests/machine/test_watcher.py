"""What is noticed in a machine's output and in QEMU's events, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm.errors import DriveFailed, GuestPanic, KernelSplat, MachineError
from pytest_kvm.guest.recognisers.scanner import Scanner
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.machine.verdicts import listener
from pytest_kvm.machine.verdicts.watcher import Watcher
from pytest_kvm.qemu.qmp import Event
from pytest_kvm.waiting import Deadline
from tests.guest.console.wires import Wire, laid

NODE: dict[str, Any] = {"node-name": "disk0"}
PANIC = b"[    1.000000] Kernel panic - not syncing: it broke\r\n[    1.000001] CPU: 0 PID: 1 Comm: init\r\n"


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with laid(tmp_path) as made:
        yield made


def watched(wire: Wire) -> Watcher:
    made = Watcher("vm", io=wire.io, watch=wire.watch, boots=True)
    made.listen(wire.port)
    return made


@pytest.fixture
def watcher(wire: Wire) -> Watcher:
    return watched(wire)


def event(name: str, seconds: float = 100.0, **data: object) -> Event:
    return {
        "event": name,
        "data": data,
        "timestamp": {"seconds": int(seconds), "microseconds": int(seconds % 1 * 1_000_000)},
    }


def kinds(watcher: Watcher) -> list[str]:
    return [finding.kind for finding in watcher.findings.all]


def test_a_panic_ends_every_wait_with_its_trace(wire: Wire, watcher: Watcher) -> None:
    wire.guest.sendall(PANIC)
    with pytest.raises(GuestPanic, match="it broke") as panic:
        wire.watch.wait_for(lambda: False, Deadline(60))
    assert "Comm: init" in panic.value.trace
    assert kinds(watcher) == ["panic"]


def test_a_report_that_does_not_go_on_has_ended(wire: Wire, watcher: Watcher) -> None:
    wire.guest.sendall(b"[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/foo.c:1 foo+0x1/0x2\r\n")
    assert wire.watch.wait_only(lambda: bool(watcher.findings.all), Deadline(60))
    assert isinstance(watcher.findings.untold()[0].error(), KernelSplat)
    wire.watch.check()  # nobody's wait ends


def test_a_scan_that_fails_is_an_error(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Scanner):
        def feed(self, data: bytes) -> list[Splat]:
            raise KeyError("a mistake of ours")

    with monkeypatch.context() as patch:  # other machines' are not to fail
        patch.setattr(listener, "Scanner", Failing)
        watcher = watched(wire)
    wire.guest.sendall(b"anything\r\n")
    with pytest.raises(MachineError, match=r"could not be searched for panics .* KeyError: 'a mistake of ours'"):
        wire.watch.wait_for(lambda: False, Deadline(60))
    wire.print(b"more\r\n")
    assert kinds(watcher) == ["scan"]


def test_what_follows_a_panic_is_its_consequence(wire: Wire, watcher: Watcher) -> None:
    wire.guest.sendall(PANIC)
    wire.io.call(watcher.heed, event("GUEST_PANICKED", action="pause"))
    wire.io.call(watcher.heed, event("RESET", guest=True, reason="guest-reset"))
    assert kinds(watcher) == ["panic"]
    assert "it broke" in watcher.findings.all[0].title


def test_a_panic_without_a_word(wire: Wire, watcher: Watcher) -> None:
    wire.io.call(watcher.heed, event("GUEST_PANICKED", action="pause"))
    assert str(watcher.findings.all[0].error()) == "VM 'vm': the guest's kernel panicked"


def test_one_reboot_is_told_once(wire: Wire, watcher: Watcher) -> None:
    watcher.reset_asked = True
    for seconds in (100.0, 100.01, 100.02):
        wire.io.call(watcher.heed, event("RESET", seconds, guest=True, reason="guest-reset"))
    assert kinds(watcher) == []
    wire.io.call(watcher.heed, event("RESET", 105.0, guest=True, reason="guest-reset"))
    assert kinds(watcher) == ["reboot"]


def test_the_reset_button_mends(wire: Wire, watcher: Watcher) -> None:
    wire.io.call(watcher.heed, event("GUEST_PANICKED"))
    assert wire.watch.failures == 1
    wire.io.call(watcher.heed, event("RESET", guest=False, reason="host-qmp-system-reset"))
    assert wire.watch.failures == 0
    assert len(watcher.findings.untold()) == 1


def test_the_power_button_asks(wire: Wire, watcher: Watcher) -> None:
    wire.io.call(watcher.heed, event("POWERDOWN"))
    wire.io.call(watcher.heed, event("SHUTDOWN", guest=True, reason="guest-shutdown"))
    assert kinds(watcher) == []


def test_a_drive_that_fails(wire: Wire, watcher: Watcher) -> None:
    failed = event("BLOCK_IO_ERROR", action="stop", operation="write", nospace=True, reason="No space left", **NODE)
    wire.io.call(watcher.heed, event("BLOCK_IO_ERROR", action="report", operation="write", reason="no", **NODE))
    assert kinds(watcher) == []
    for _ in range(3):
        wire.io.call(watcher.heed, failed)
    with pytest.raises(DriveFailed, match="VM 'vm': drive 'disk0' cannot be written, and the guest was stopped: No sp"):
        wire.watch.check()
    wire.io.call(watcher.heed, event("RESUME"))
    wire.watch.check()


def test_firmware_without_anything_to_boot(wire: Wire) -> None:
    watcher = Watcher("vm", io=wire.io, watch=wire.watch, boots=False)
    watcher.listen(wire.port)
    wire.print(b"No bootable device.\n")
    wire.io.call(watcher.drain)
    assert kinds(watcher) == []


def test_a_guest_that_complains_without_end(wire: Wire, watcher: Watcher) -> None:
    line = b"[    1.%06d] WARNING: CPU: 0 PID: 1 at kernel/foo.c:1 foo+0x1/0x2\r\n"
    wire.print(*(b"".join(line % (block * 100 + n) for n in range(100)) for block in range(15)))
    wire.io.call(watcher.drain)
    assert len(watcher.findings.all) == 1000
    wire.print(PANIC)
    wire.io.call(watcher.drain)
    with pytest.raises(GuestPanic, match="it broke"):
        wire.watch.check()
