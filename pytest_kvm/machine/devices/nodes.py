"""Which names the guest has for its devices: scripts that find them in /sys, where a device's place is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.devices.places import PERIPHERAL, Place, address_of, flat, get, host_of, place_of
from pytest_kvm.qemu.plan import PlannedDrive, machine_kind

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# PCI's class codes of the board's own controllers.
_SATA, _IDE = 0x0106, 0x0101


def _glob(*patterns: str) -> str:
    """Return a script that prints the name of the first thing that there is."""
    return f'for each in {" ".join(patterns)}; do [ -e "$each" ] && echo "${{each##*/}}" && exit; done; exit 1'


def interface_script(place: Place) -> str:
    """Return the script that prints the name of a network card's interface."""
    return f"d={place.folder}; {_glob('$d/virtio*/net/*', '$d/net/*')}"


def port_script(vm: VM, name: str, driver: str) -> str:
    """Return the script that prints the name of a virtio-serial port's device file, or of a console's."""
    place = place_of(vm, host_of(vm, name))
    number = get(vm, f"{PERIPHERAL}/{name}", "nr")
    port = f"$d/virtio*/virtio-ports/vport*p{number}"
    if driver == "virtserialport":
        return f"d={place.folder}; {_glob(port)}"
    # Consoles have numbers of their own, in the order in which they came (drivers/char/virtio_console.c).
    return (
        f"d={place.folder}; [ -e {port} ] || exit 1; "
        'n=$(for p in /sys/class/virtio-ports/*; do [ -e $p/name ] && [ -s $p/name ] && continue; echo "${p##*/}"; '
        f'done | sort -V | grep -n -x "$(cd {port} && basename "$(pwd -P)")"); echo hvc$((${{n%%:*}} - 1))'
    )


def disk_script(vm: VM, planned: PlannedDrive, controller: Place | None) -> str:
    """Return the script that prints the name of a drive's device file; ``controller`` None is the board's own."""
    unit = planned.unit
    match planned.drive.interface:
        case "floppy":
            return _glob(f"/sys/block/fd{unit}")
        case "ide":
            return _ide(vm, unit)
    if controller is None:
        raise MachineError(f"VM {vm.name!r}: drive {planned.id!r} is on no controller that is known")
    found = {
        "virtio": "$d/virtio*/block/*",
        "nvme": "$d/nvme/nvme*/nvme*n1",
        "scsi": f"$d/virtio*/host*/target*/*:0:{unit}:*/block/*",
        "usb": f"$d/usb*/*-{unit + 1}/*/host*/target*/*/block/*",
    }[planned.drive.interface]
    return f"d={controller.folder}; {_glob(found)}"


def _ide(vm: VM, unit: int) -> str:
    """Return the script for a disk on AHCI, a port each, or on PIIX, two to a channel."""
    wanted = _SATA if machine_kind(vm.spec.machine) == "q35" else _IDE
    controllers = [each for each in flat(vm.qmp.execute("query-pci")) if each["class_info"]["class"] == wanted]
    if not controllers:
        raise MachineError(f"VM {vm.name!r}: the machine has no IDE controller")
    port, place = (unit, 0) if wanted == _SATA else divmod(unit, 2)
    folder = f"/sys/bus/pci/devices/{address_of(controllers[0])}"
    found = _glob(f"$p/host*/target*/*:0:{place}:0/block/*")
    return f'p=$(ls -d {folder}/ata* | sort -V | sed -n {port + 1}p); [ -n "$p" ] || exit 1; {found}'
