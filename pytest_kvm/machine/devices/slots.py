"""Places on PCI for devices that are plugged in while the machine runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_kvm.errors import SpecError
from pytest_kvm.machine.devices.places import flat, identifiers
from pytest_kvm.qemu.plan import machine_kind

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_ROOT_PORT = "pcie-root-port"


def pin(vm: VM) -> None:
    """Have the machine's plan say where on PCI its devices are: another start must not close a gap that one left."""
    there = [each for each in flat(vm.qmp.execute("query-pci")) if each["qdev_id"] and each["bus"] == 0]
    addresses = {each["qdev_id"]: f"{each['slot']:02x}.{each['function']}" for each in there}
    vm._plan = replace(vm._plan, addresses=addresses)


def free_ports(vm: VM) -> list[str]:
    """Return the root ports of a running machine that nothing is in."""
    taken = {each["qdev_id"] for each in flat(vm.qmp.execute("query-pci")) if each.get("pci_bridge", {}).get("devices")}
    taken |= {drive.port for drive, _ in vm._plan.drives if drive.port}
    there = sorted(identifiers(vm).items())
    return [name for name, driver in there if driver == _ROOT_PORT and name not in taken]


def free_bus(vm: VM, what: str) -> str:
    """Return the bus that a device of PCI is plugged into: a free root port of a q35, "" for QEMU's choice on a pc.

    Raises SpecError when there is none, or no PCI.
    """
    kind = machine_kind(vm.spec.machine)
    if kind == "pc":
        return ""
    if kind != "q35":
        raise SpecError(
            f"VM {vm.name!r}: {what} cannot be plugged in: a machine {vm.spec.machine!r} has no PCI that is known to "
            "allow it; use q35 or pc"
        )
    for name in free_ports(vm):
        return name
    ports = [name for name, driver in sorted(identifiers(vm).items()) if driver == _ROOT_PORT]
    raise SpecError(
        f"VM {vm.name!r}: no root port is left for {what}: {', '.join(ports) or 'there is none'}; unplug something, or "
        "declare more of them: devices=[Device('pcie-root-port', id='port9', properties={'chassis': 9, 'slot': 9})]"
    )
