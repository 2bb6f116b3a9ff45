"""The balloon: memory that a guest gives back to its host for a while, and what its driver tells about the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import BalloonTimeout, MachineError, SpecError, WaitTimeout
from pytest_kvm.machine.devices.places import PERIPHERAL, get
from pytest_kvm.spec.size import parse_size
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_PATIENCE = Usual(10)
# QEMU tells of a balloon's size once a second at most (monitor.c), and of statistics not at all: they are looked at.
_FIRST_LOOK, _LONGEST = 0.002, 0.1
# hw/virtio/virtio-balloon.c: what the guest's driver has not told.
_UNTOLD = 2**64 - 1
_PAGE = 4096
_INTERVAL = "guest-stats-polling-interval"


@dataclass(frozen=True, kw_only=True)
class BalloonStatistics:
    """What the guest's driver told about its memory, in bytes, and in numbers of events since it was booted.

    The names are QEMU's (docs/interop/virtio-balloon-stats.rst); None is what this driver, or this QEMU, does not know.
    ``updated`` is when QEMU got it, in whole seconds since 1970.
    """

    updated: int
    total_memory: int | None = None
    free_memory: int | None = None
    available_memory: int | None = None
    disk_caches: int | None = None
    swap_in: int | None = None
    swap_out: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    htlb_pgalloc: int | None = None
    htlb_pgfail: int | None = None
    oom_kills: int | None = None
    alloc_stalls: int | None = None
    async_scans: int | None = None
    direct_scans: int | None = None
    async_reclaims: int | None = None
    direct_reclaims: int | None = None


class Balloon:
    """The balloon of a running machine; ``path`` is where it is in QEMU's tree of objects.

    Deflated, the guest has all of its memory; that is how every machine begins.
    """

    def __init__(self, vm: VM, path: str) -> None:
        self._vm = vm
        self.path = path

    def __repr__(self) -> str:
        return f"<Balloon of VM {self._vm.name!r}>"

    @property
    def actual(self) -> int:
        """How much memory the guest has now, in bytes (QMP's query-balloon)."""
        return int(self._vm.qmp.execute("query-balloon")["actual"])

    def set(self, size: int | str, *, timeout: float | None = _PATIENCE) -> None:
        """Let the guest have so much memory, and wait until that is so.

        ``size`` is QEMU's text (``"64M"``; a number: bytes). ``timeout`` is in seconds (None: no limit). Raises
        SpecError for more than the machine has, MachineError when it is paused, and BalloonTimeout when the guest does
        not give so much; then it is asked for what it had before, since one without any memory left cannot go on.
        """
        vm = self._vm
        wanted = self._reachable(size)
        self._check_awake()
        deadline = vm.watch.deadline(timeout)
        before = self.actual
        vm.qmp.execute("balloon", {"value": wanted})
        for _ in self._looks(deadline):
            if self.actual == wanted:
                return
        actual = self.actual
        vm.qmp.execute("balloon", {"value": before})
        what = f"has come to {_shown(actual)}, not {_shown(wanted)}"
        hint = "it has no more to give"
        if actual == before:
            what = f"stays at {_shown(actual)}, and does not come to {_shown(wanted)}"
            hint = "does its kernel have the driver, virtio_balloon?"
        elif wanted > before:
            hint = "its driver is slow to take it back"
        raise BalloonTimeout(
            f"VM {vm.name!r}: its guest's memory {what}, within {deadline.seconds or 0.0:g} s; {hint}",
            timeout=deadline.seconds or 0.0,
            asked=wanted,
            actual=actual,
        )

    def statistics(self, *, timeout: float | None = _PATIENCE) -> BalloonStatistics:
        """Ask the guest's driver about its memory, and return what it tells now.

        ``timeout`` is in seconds (None: no limit). Raises MachineError when the machine is paused, WaitTimeout when no
        driver answers.
        """
        vm = self._vm
        self._check_awake()
        deadline = vm.watch.deadline(timeout)
        interval = get(vm, self.path, _INTERVAL)
        before = self._told()
        try:
            # From off to on, QEMU asks at once, and then every second: also when this is the answer of a moment ago.
            self._poll(0)
            self._poll(1)
            for _ in self._looks(deadline):
                told = self._told()
                if told["last-update"] and told != before:
                    return _statistics(told)
        finally:
            self._poll(interval)
        raise WaitTimeout(
            f"VM {vm.name!r}: its guest tells nothing about its memory, within {deadline.seconds or 0.0:g} s; does its "
            "kernel have the driver, virtio_balloon?",
            timeout=deadline.seconds or 0.0,
        )

    def _reachable(self, size: int | str) -> int:
        """Return the size in whole pages, as QEMU counts them."""
        wanted, most = parse_size(size, "B"), self._most()
        if wanted > most:
            raise SpecError(
                f"VM {self._vm.name!r}: balloon.set({size!r}): the machine has {_shown(most)}, and a balloon only "
                "takes some of it",
                value=size,
            )
        return most - (most - wanted) // _PAGE * _PAGE

    def _most(self) -> int:
        """Return the memory that the machine has, as hw/virtio/virtio-balloon.c counts it: modules are in it."""
        base = self._vm.qmp.execute("query-memory-size-summary")["base-memory"]
        devices = self._vm.qmp.execute("query-memory-devices")
        return int(base + sum(each["data"]["size"] for each in devices if each["type"] == "dimm"))

    def _check_awake(self) -> None:
        status = self._vm.qmp.execute("query-status")
        if not status["running"]:
            raise MachineError(
                f"VM {self._vm.name!r} is {status['status']}: its guest cannot answer; vm.resume() lets it"
            )

    def _looks(self, deadline: Deadline) -> Iterator[None]:
        """Yield until the deadline, with longer and longer pauses; raises what ends the machine."""
        pause = _FIRST_LOOK
        while True:
            yield
            if deadline.expired:
                return
            self._vm.watch.wait_for(lambda: False, deadline.sooner(pause))
            pause = min(2 * pause, _LONGEST)

    def _told(self) -> Mapping[str, Any]:
        told: Mapping[str, Any] = get(self._vm, self.path, "guest-stats")
        return told

    def _poll(self, seconds: int) -> None:
        self._vm.qmp.execute("qom-set", {"path": self.path, "property": _INTERVAL, "value": seconds})


def find_balloon(vm: VM) -> Balloon:
    """Return the balloon of a running machine, QEMU has one at most; raises SpecError when there is none."""
    for folder in (PERIPHERAL, f"{PERIPHERAL}-anon"):
        for child in vm.qmp.execute("qom-list", {"path": folder}):
            if child["type"].startswith("child<virtio-balloon-"):
                return Balloon(vm, f"{folder}/{child['name']}")
    raise SpecError(
        f"VM {vm.name!r} has no balloon; every machine with an image has one, unless extras= leaves it out, and "
        "devices=[VirtioBalloon()] adds one",
        keyword="extras",
    )


def _statistics(told: Mapping[str, Any]) -> BalloonStatistics:
    known = {each.name for each in fields(BalloonStatistics)}
    stats = {name.removeprefix("stat-").replace("-", "_"): value for name, value in told["stats"].items()}
    given = {name: value for name, value in stats.items() if name in known and 0 <= value != _UNTOLD}
    return BalloonStatistics(updated=told["last-update"], **given)


def _shown(size: int) -> str:
    return f"{size / 1024**2:.6g} MiB"
