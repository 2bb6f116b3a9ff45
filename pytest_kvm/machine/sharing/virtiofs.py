"""A folder through virtio-fs: a daemon reads and writes it, in the memory that it shares with the guest."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import HostError, QMPError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.virtiofsd import find_virtiofsd
from pytest_kvm.machine.daemon import Daemon, report_lost
from pytest_kvm.machine.sharing.method import CannotShare, Mount
from pytest_kvm.qemu.plan import PlannedShare
from pytest_kvm.qemu.process import describe_end
from pytest_kvm.qemu.sockets import Listener

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

DEVICE = "vhost-user-fs-pci"
NAME = "virtiofsd"
# The guest has no name for its file systems; it has as many as were plugged in, one after the other.
_SOURCE = "set -- /sys/bus/virtio/drivers/virtiofs/virtio*; [ -e $1 ] && [ $# -ge {count} ] && echo {id}"


class VirtioFS:
    """See Method."""

    name = filesystem = driver = "virtiofs"

    def check(self, vm: VM, planned: PlannedShare) -> None:
        """See Method."""
        if DEVICE not in vm._binary.devices:
            raise CannotShare("this QEMU was built without it")
        if vm._plan.ram is None or not vm._plan.ram.shared:
            raise CannotShare(
                "a clone's memory is its own, and the daemon would have to see it (start='boot' lets it)"
                if vm._plan.ram is not None
                else "nobody but QEMU sees the memory of a machine with args=, or of an unknown type"
            )
        self._command(planned, 0)

    def plug(self, vm: VM, planned: PlannedShare, bus: dict[str, str]) -> Mount:
        """See Method."""
        with contextlib.closing(Listener(vm._folder / f"{planned.id}.fs")) as listener:
            daemon = Daemon(
                NAME,
                self._command(planned, listener.fileno()),
                [listener.fileno()],
                io=vm._io,
                watch=vm.watch,
                log=vm._folder / f"{planned.id}.log",
                lost=lambda daemon: report_lost(vm, daemon, f"{planned.share.host} as {planned.share.guest}"),
            )
        vm.daemons.append(daemon)
        chardev = f"{planned.id}-fs"
        address = {"type": "unix", "data": {"path": str(listener.path)}}
        try:
            vm.qmp.execute(
                "chardev-add",
                {"id": chardev, "backend": {"type": "socket", "data": {"addr": address, "server": False}}},
            )
            vm.qmp.execute(
                "device_add", {"driver": DEVICE, "id": planned.id, "chardev": chardev, "tag": planned.id, **bus}
            )
        except QMPError as error:
            vm.daemons.remove(daemon)
            daemon.end()
            said = daemon.said.rpartition("\n")[2]
            raise CannotShare(f"virtiofsd {describe_end(daemon.process.returncode)}: {said or error}") from error
        daemon.serving = True
        return Mount("", _SOURCE.format(count=sum(each.name == NAME for each in vm.daemons), id=planned.id))

    def _command(self, planned: PlannedShare, descriptor: int) -> list[str]:
        try:
            found = find_virtiofsd(cache_dir() / "host")
            return found.command(Path(planned.share.host), descriptor, readonly=planned.share.readonly)
        except HostError as error:
            raise CannotShare(" ".join(str(error).split())) from error
