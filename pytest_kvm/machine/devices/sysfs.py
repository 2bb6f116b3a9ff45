"""What the guest's kernel knows about a virtio device: its directory in /sys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.devices.places import Place
from pytest_kvm.machine.rooted import run_as_root
from pytest_kvm.waiting import Deadline, Usual

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_PATIENCE = Usual(30)
# The files are those of drivers/virtio/virtio.c; config is PCI's own.
_SCRIPT = (
    "cd {folder} && cd virtio*/ && cat device status features && "
    '{{ basename "$(readlink driver)"; ls ../msi_irqs 2>/dev/null | wc -l; od -An -v -tx1 ../config 2>/dev/null; :; }}'
)


@dataclass(frozen=True)
class GuestView:
    """A device: its type's number, the bits of its status, the ``features`` that were negotiated, its ``driver``.

    ``vectors`` are its MSI-X vectors, ``pci`` is as much of its configuration space on PCI as may be read.
    """

    device: int
    status: int
    features: frozenset[int]
    driver: str | None
    vectors: int
    pci: bytes


def look_in_guest(vm: VM, name: str, place: Place) -> GuestView:
    """Return the guest's view of a virtio device; raises MachineError when it does not have it."""
    script = _SCRIPT.format(folder=place.folder)
    if vm._image is not None and vm._image.sudo:  # only root reads all of a configuration space
        done = run_as_root(vm, script, Deadline(vm.watch.limit(_PATIENCE)))
    else:
        done = vm.run(script, check=False, timeout=_PATIENCE)
    if done.returncode:
        where = f"{place.address}, where {name!r} is"
        raise MachineError(f"VM {vm.name!r}: the guest has no virtio device at {where}: {done.stderr}".rstrip())
    device, status, features, driver, vectors, *config = done.stdout.splitlines()
    return GuestView(
        device=int(device, 16),
        status=int(status, 16),
        # Without a driver, the file has what the last one had negotiated.
        features=frozenset(bit for bit, text in enumerate(features) if text == "1" and driver),
        driver=driver or None,
        vectors=int(vectors),
        pci=bytes.fromhex("".join(config)),
    )
