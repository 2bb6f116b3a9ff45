"""A folder through 9p: QEMU reads and writes it itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kvm.machine.sharing.method import CannotShare, Mount
from pytest_kvm.qemu.cmdline import NINEP
from pytest_kvm.qemu.plan import PlannedShare

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# The most that Linux takes over virtio (net/9p/trans_virtio.c: 128 pages, less what goes with them). No cache: the
# guest sees what the host writes.
_OPTIONS = "trans=virtio,version=9p2000.L,msize=512000"
_SOURCE = (
    "for tag in /sys/bus/virtio/drivers/9pnet_virtio/virtio*/mount_tag; do "
    """[ "$(tr -d '\\0' <$tag)" = {id} ] && echo {id}; done 2>/dev/null | grep ."""
)


class NineP:
    """See Method."""

    name = filesystem = "9p"
    driver = "9pnet_virtio"

    def check(self, vm: VM, planned: PlannedShare) -> None:
        """See Method."""
        if NINEP not in vm._binary.devices:
            raise CannotShare("this QEMU was built without it")

    def plug(self, vm: VM, planned: PlannedShare, bus: dict[str, str]) -> Mount:
        """See Method. The folder itself is on the command line."""
        settings = {"id": planned.id, "fsdev": planned.id, "mount_tag": planned.id, **bus}
        vm.qmp.execute("device_add", {"driver": NINEP, **settings})
        return Mount(_OPTIONS, _SOURCE.format(id=planned.id))
