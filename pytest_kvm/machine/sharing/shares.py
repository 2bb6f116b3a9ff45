"""Folders of the host in a machine that is ready: plugged in, and mounted."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import HostError, MachineError, QMPError, SpecError
from pytest_kvm.machine.devices.slots import free_ports
from pytest_kvm.machine.rooted import run_as_root
from pytest_kvm.machine.sharing.image import FolderImage, FolderImages
from pytest_kvm.machine.sharing.method import CannotShare, GuestCannot, Method, Mount
from pytest_kvm.machine.sharing.ninep import NineP
from pytest_kvm.machine.sharing.virtiofs import VirtioFS
from pytest_kvm.qemu.cmdline import ROOT_PORTS
from pytest_kvm.qemu.plan import PlannedShare, machine_kind, plan_shares
from pytest_kvm.visible import visible
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_log = logging.getLogger("pytest_kvm")
# A driver shows its device a moment before it can be used.
_TRIES = 20
# A moment, for whatever shell there is.
_PAUSE = "usleep 5000 2>/dev/null || sleep 0.05 2>/dev/null || sleep 1"


@dataclass(frozen=True)
class MountedShare:
    """A folder of the host as a machine has it: ``method`` is ``virtiofs``, ``9p`` or ``image``.

    ``reason`` says why it is not a better one, "" for the best.
    """

    id: str
    host: Path
    guest: str
    readonly: bool
    method: str
    reason: str


@dataclass(frozen=True)
class Attached:
    """A share whose device is plugged in."""

    share: MountedShare
    method: Method
    how: Mount

    def mount(self, vm: VM, deadline: Deadline) -> None:
        """Mount it, as soon as the guest has the device; raises MachineError."""
        options = ",".join(word for word in ("ro" if self.share.readonly else "rw", self.how.options) if word)
        folder = shlex.quote(self.share.guest)
        script = (
            f"mkdir -p {folder} && until source=$({self.how.source}); do {_PAUSE}; done && tries={_TRIES} && "
            f'until said=$(mount -t {self.method.filesystem} -o {options} "$source" {folder} 2>&1); do '
            f'tries=$((tries - 1)); [ $tries -gt 0 ] || {{ echo "$said"; exit 1; }}; {_PAUSE}; done'
        )
        done = run_as_root(vm, script, deadline)
        if done.returncode:
            raise MachineError(
                f"VM {vm.name!r}: {self.share.host} cannot be mounted at {self.share.guest} ({self.method.name}, "
                f"{vm.via}): {(done.stderr or done.stdout).strip() or f'status {done.returncode}'}"
            )

    def mount_again(self, vm: VM, deadline: Deadline) -> None:
        """Mount it after a reboot; raises MachineError."""
        _provide(vm, self.method, deadline)  # what it cannot is what mount says
        self.mount(vm, deadline)


class Sharing:
    """How the machines of a session get folders of the host."""

    def __init__(self) -> None:
        self._images = FolderImages()
        # The best first.
        self.methods: Sequence[Method] = (VirtioFS(), NineP(), FolderImage(self._images))

    def close(self) -> None:
        """Remove what the machines of the session had in common; raises OSError when something stays."""
        self._images.close()

    def attach(self, vm: VM, deadline: Deadline) -> list[Attached]:
        """Plug the shares of a machine's spec in, and mount them.

        Raises HostError when this host cannot do that, MachineError when the guest cannot.
        """
        buses = _buses(vm)
        return [self._attached(vm, planned, next(buses), deadline) for planned in plan_shares(vm.spec)]

    def _attached(self, vm: VM, planned: PlannedShare, bus: dict[str, str], deadline: Deadline) -> Attached:
        share = planned.share
        refused: list[tuple[str, Exception]] = []
        for method in self.methods:
            if share.method not in ("auto", method.name):
                continue
            try:
                method.check(vm, planned)
                lacking = _provide(vm, method, deadline)
                if lacking:  # no device that nobody can use
                    raise GuestCannot(lacking)
                mount = method.plug(vm, planned, bus)
            except (CannotShare, QMPError, HostError) as error:
                refused.append((method.name, error))
                continue
            why = _told(refused)
            _log.info("VM %r: %s through %s %s", vm.name, share.guest, method.name, visible(why and f"({why})"))
            mounted = MountedShare(planned.id, Path(share.host), share.guest, share.readonly, method.name, why)
            attached = Attached(mounted, method, mount)
            attached.mount(vm, deadline)
            return attached
        message = f"VM {vm.name!r}: {share.host} does not get to {share.guest} in the guest: {_told(refused)}"
        guest = any(isinstance(error, (GuestCannot, QMPError)) for _, error in refused)
        raise (MachineError if guest else HostError)(message)


def _told(refused: Sequence[tuple[str, Exception]]) -> str:
    return "; ".join(f"{name}: {' '.join(str(error).split())}" for name, error in refused)


def _buses(vm: VM) -> Iterator[dict[str, str]]:
    """Yield the places for devices that are plugged in: root ports that nothing is in, on a q35."""
    if machine_kind(vm.spec.machine) != "q35":
        while True:
            yield {}
    for port in free_ports(vm):
        yield {"bus": port}
    raise SpecError(
        f"VM {vm.name!r}: no root port is left for its shares: {ROOT_PORTS} are shared by them and by drives that are "
        "plugged in; give it fewer of one or the other",
        keyword="shares",
    )


def _provide(vm: VM, method: Method, deadline: Deadline) -> str:
    """Let the guest have the file system; return why it cannot, "" if it can."""
    driver, filesystem = method.driver, method.filesystem
    script = (
        f"{{ test -e /sys/bus/virtio/drivers/{driver} || modprobe {driver}; }} && "
        f"{{ grep -qw {filesystem} /proc/filesystems || modprobe {filesystem}; }}"
    )
    done = run_as_root(vm, script, deadline)
    said = (done.stderr or done.stdout).strip() or "no module"
    return f"the guest's kernel does not have it ({said})" if done.returncode else ""
