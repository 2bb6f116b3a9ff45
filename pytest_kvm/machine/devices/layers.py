"""What is put between a drive's device and its file while QEMU runs: filters, one on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.devices.places import PERIPHERAL
from pytest_kvm.qemu.plan import DriveFile, PlannedDrive

if TYPE_CHECKING:
    from pytest_kvm.machine.devices.unflushed import Unflushed
    from pytest_kvm.machine.machine import Machine
    from pytest_kvm.machine.vm import VM


@dataclass(frozen=True)
class Filter:
    """A filter's ``node``, and the node ``below`` it: one of our own, which can be pointed at another one later."""

    node: str
    below: str


@dataclass
class Layers:
    """What is between a drive's device and its file: all ``filters``, the lowest first, on the node ``bottom``.

    ``unflushed`` is what keeps unflushed writes apart, if anything does.
    """

    bottom: str
    filters: list[Filter] = field(default_factory=list)
    unflushed: Unflushed | None = None

    @property
    def top(self) -> str:
        """The node that the device uses."""
        return self.filters[-1].node if self.filters else self.bottom


def current(vm: Machine, id: str) -> tuple[PlannedDrive, DriveFile]:
    """Return a drive as it is now, and the file behind it; raises MachineError when the machine has it no longer."""
    for planned, file in vm._plan.drives:
        if planned.id == id:
            return planned, file
    raise MachineError(f"VM {vm.name!r}: drive {id!r} is gone")


def replace_drive(vm: Machine, id: str, planned: PlannedDrive, file: DriveFile) -> None:
    """Let a drive be this one from now on."""
    drives = [(planned, file) if each.id == id else (each, old) for each, old in vm._plan.drives]
    vm._plan = replace(vm._plan, drives=drives)


def backend(vm: VM, id: str) -> Mapping[str, object]:
    """Return what query-block says about a drive; raises MachineError when QEMU does not have it.

    What QEMU calls the device's block backend may be a part of the device: ``virtio-backend`` of a virtio-blk-pci, the
    SCSI disk within a usb-storage.
    """
    for each in vm.qmp.execute("query-block"):
        found = str(each.get("qdev", ""))
        if found == id or found.startswith(f"{PERIPHERAL}/{id}/"):
            return {**each, "qdev": found}
    raise MachineError(f"VM {vm.name!r}: drive {id!r} has no block backend")


def backend_id(vm: VM, id: str) -> str:
    """Return what QMP's commands about a device's block backend call it."""
    return str(backend(vm, id)["qdev"])


def new_node(vm: VM, kind: str) -> str:
    """Return a name that no block node has: not one made of an id, names have 31 characters at most (block_int.h)."""
    there = {each["node-name"] for each in vm.qmp.execute("query-named-block-nodes", {"flat": True})}
    return next(name for name in (f"kvm-{kind}{number}" for number in count()) if name not in there)


def layers_of(vm: VM, id: str) -> Layers:
    """Return what is between a drive of a running machine and its file; raises QEMUExited when it is off."""
    run = vm._run
    if run is None or not run.process.running:
        raise vm._off_error()
    return run.layers.setdefault(id, Layers(id))


def add_filter(vm: VM, id: str, options: Mapping[str, object], child: str) -> Filter:
    """Put a filter on top of what is there; ``child`` is what QEMU's schema calls what is below it."""
    layers = layers_of(vm, id)
    added = Filter(new_node(vm, "filter"), new_node(vm, "below"))
    try:
        vm.qmp.execute_all(
            ("blockdev-add", {"driver": "raw", "node-name": added.below, "file": layers.top}),
            ("blockdev-add", {**options, "node-name": added.node, child: added.below}),
        )
        _use(vm, id, added.node)
    except MachineError:
        _delete(vm, added)
        raise
    layers.filters.append(added)
    vm.watcher.nodes[added.node] = id
    return added


def remove_filter(vm: VM, id: str, which: Filter) -> None:
    """Take a filter away, wherever it is among the others."""
    layers = layers_of(vm, id)
    place = layers.filters.index(which)
    beneath = layers.filters[place - 1].node if place else layers.bottom
    _point(vm, id, layers.filters[place + 1] if place + 1 < len(layers.filters) else None, beneath)
    layers.filters.remove(which)
    _delete(vm, which)


def change_bottom(vm: VM, id: str, node: str) -> None:
    """Put all that is there on another node."""
    layers = layers_of(vm, id)
    _point(vm, id, layers.filters[0] if layers.filters else None, node)
    layers.bottom = node


def remove_filters(vm: VM, id: str) -> None:
    """Take all filters away."""
    for each in reversed(list(layers_of(vm, id).filters)):
        remove_filter(vm, id, each)


def _point(vm: VM, id: str, above: Filter | None, node: str) -> None:
    if above is None:
        _use(vm, id, node)
    else:
        vm.qmp.execute("blockdev-reopen", {"options": [{"driver": "raw", "node-name": above.below, "file": node}]})


def _use(vm: VM, id: str, node: str) -> None:
    vm.qmp.execute("qom-set", use(vm, id, node))


def use(vm: VM, id: str, node: str) -> Mapping[str, object]:
    """Return the arguments of the qom-set that lets a drive's device use a node."""
    found = backend_id(vm, id)
    path = found if found.startswith("/") else f"{PERIPHERAL}/{found}"
    return {"path": path, "property": "drive", "value": node}


def _delete(vm: VM, which: Filter) -> None:
    """Delete a filter's nodes, those of them that there are."""
    there = {each["node-name"] for each in vm.qmp.execute("query-named-block-nodes", {"flat": True})}
    for node in (which.node, which.below):
        if node in there:
            vm.qmp.execute("blockdev-del", {"node-name": node})
