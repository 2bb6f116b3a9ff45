"""Notices what goes wrong in a machine: in what the guest prints, in QEMU's events, at QEMU's end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_kvm.errors import DriveFailed, MachineError
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.kernel.traces.decoding import Decoded, raw
from pytest_kvm.machine.verdicts.finding import Finding, panic, splat
from pytest_kvm.machine.verdicts.findings import Findings
from pytest_kvm.machine.verdicts.listener import Listener
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.qmp import Event
from pytest_kvm.waiting import Watch

# QEMU tells of one reboot two or three times: a kernel tries several ways in a row.
_SAME_RESET = 1.0
_TAIL = 60


class Watcher:
    """Writes into the ``findings`` what happens to the machine ``name``.

    ``shutdown_asked`` and ``reset_asked`` say that somebody wants the machine to go off, or to be reset: that is no
    finding. ``boots`` says whether the guest is meant to come up at all: a machine for QMP alone need not find anything
    to boot.
    """

    def __init__(self, name: str, *, io: IOThread, watch: Watch, boots: bool) -> None:
        self.findings = Findings(watch)
        self.shutdown_asked = False
        self.reset_asked = False
        # The drives' ids, of block nodes that are not called like the drive.
        self.nodes: dict[str, str] = {}
        # Finds the lines of source in what a kernel reports.
        self.decode: Callable[[str], Decoded] = raw
        self._name = name
        self._io = io
        self._watch = watch
        self._boots = boots
        self._ports: list[tuple[SerialPort, Listener]] = []
        self._last_reset = 0.0
        self._handlers: dict[str, Callable[[Event, dict[str, Any]], None]] = {
            "RESET": self._reset,
            "SHUTDOWN": self._shutdown,
            "POWERDOWN": self._powerdown,
            "GUEST_PANICKED": self._panicked,
            "GUEST_CRASHLOADED": self._panicked,
            "WATCHDOG": self._watchdog,
            "BLOCK_IO_ERROR": self._drive_failed,
            "RESUME": self._resumed,
        }

    def listen(self, port: SerialPort) -> None:
        """Look for reports in what comes from this port."""
        listener = Listener(io=self._io, watch=self._watch, found=self._printed, broken=self._deaf)
        port.listener = listener.feed
        self._ports.append((port, listener))

    def accept_shutdown(self) -> None:
        """Somebody waits for the guest to switch itself off; it may have done so already."""
        with self._watch:
            self.shutdown_asked = True
            self.findings.accept("shutdown")

    def revive(self) -> None:
        """The machine begins anew."""
        self.shutdown_asked = self.reset_asked = False
        self.nodes.clear()
        self.findings.revive()

    @property
    def pending(self) -> bool:
        """Whether the guest is in the middle of a report."""
        return any(listener.pending for _, listener in self._ports)

    def receive(self) -> None:
        """Take, in the I/O thread, what was printed until now."""
        for port, _ in self._ports:
            port.drain()

    def drain(self) -> None:
        """Take, in the I/O thread, what was printed until now, and end the report that it may be in."""
        self.receive()
        for _, listener in self._ports:
            listener.finish()

    # What was printed

    def _printed(self, report: Splat) -> None:
        if not report.fatal:
            self.findings.add(splat(self._name, report.kind, report.title, report.text, decode=self.decode))
            return
        firmware = report.kind == "firmware"
        self.findings.add(
            panic(self._name, report.kind, report.title, report.text, console=self._tail(), decode=self.decode),
            optional=firmware and not self._boots,
        )

    def _deaf(self, error: Exception) -> None:
        def make() -> MachineError:
            return MachineError(
                f"VM {self._name!r}: what the guest prints could not be searched for panics and splats, so nothing is "
                f"known about it: {type(error).__name__}: {error}"
            )

        self.findings.add(Finding(kind="scan", title="the console could not be scanned", make=make))

    def _tail(self) -> str:
        return self._ports[0][0].tail(_TAIL) if self._ports else ""

    # What QEMU tells (qapi/run-state.json). In the I/O thread.

    def heed(self, event: Event) -> None:
        """Take note of an event."""
        handler = self._handlers.get(event["event"])
        if handler is not None:
            handler(event, event.get("data", {}))

    def _reset(self, event: Event, data: dict[str, Any]) -> None:
        time = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
        again = 0 <= time - self._last_reset < _SAME_RESET
        self._last_reset = time
        self.drain()  # a panic that was printed is the cause of it
        if not data.get("guest", False):
            self.findings.revive()  # somebody pressed the reset button
        elif not again and not self.reset_asked:
            self.findings.add(self._end("reboot"), goes_on=True)
        self.reset_asked = False

    def _shutdown(self, _: Event, data: dict[str, Any]) -> None:
        self.drain()
        reason = data.get("reason", "")
        if data.get("guest", False):
            if not self.shutdown_asked:
                self.findings.add(self._end("shutdown"), goes_on=True)
                self.shutdown_asked = True  # QEMU ends because of it
        elif reason != "host-signal":  # that one is told when QEMU has ended
            self.shutdown_asked = True

    def _powerdown(self, _: Event, __: dict[str, Any]) -> None:
        self.shutdown_asked = True  # the power button: the guest is asked

    def _panicked(self, _: Event, __: dict[str, Any]) -> None:
        self.drain()
        self.findings.add(panic(self._name, "panic", "", "", console=self._tail()))

    def _watchdog(self, _: Event, data: dict[str, Any]) -> None:
        self.drain()
        action = data.get("action", "")
        found = self.findings.add(
            panic(self._name, "watchdog", f"watchdog: action {action}", "", console=self._tail()), goes_on=True
        )
        if found is not None and found.expected:
            # What it does to the machine is part of it.
            self.reset_asked = action == "reset"
            self.shutdown_asked = self.shutdown_asked or action in ("poweroff", "shutdown")

    def _drive_failed(self, _: Event, data: dict[str, Any]) -> None:
        if data.get("action") != "stop":
            return  # the guest is told, and copes or complains itself
        node = str(data.get("node-name") or data.get("device") or "?")
        drive = self.nodes.get(node, node)
        reason, nospace = str(data.get("reason", "")), bool(data.get("nospace", False))
        verb = "written" if data.get("operation") == "write" else "read"

        def make() -> DriveFailed:
            hint = "make room there" if nospace else "look at the file and the disk that it is on"
            return DriveFailed(
                f"VM {self._name!r}: drive {drive!r} cannot be {verb}, and the guest was stopped: {reason}\n  {hint}; "
                "machines keep their private disks in $TMPDIR",
                drive=drive,
                reason=reason,
                nospace=nospace,
            )

        self.findings.add(Finding(kind="drive", title=f"drive {drive} failed: {reason}", make=make))

    def _resumed(self, _: Event, __: dict[str, Any]) -> None:
        dead = self.findings.dead
        if dead is not None and dead.kind == "drive":
            self.findings.revive()  # there is room again, says who resumed it

    def _end(self, kind: str) -> Finding:
        return panic(self._name, kind, kind, "", console=self._tail())

    def exited(self, make: Callable[[], MachineError], how: str, *, wanted: bool) -> None:
        """QEMU has ended, as somebody ``wanted`` or not; nobody need wait for it."""
        self.drain()
        if not wanted:
            self.findings.add(Finding(kind="exit", title=how, make=make))
        self._watch.fail(make)
