"""What a virtio device and its driver have agreed on: the guest's view of it and QEMU's, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_kvm.errors import HostError, NegotiationError
from pytest_kvm.machine.devices.configspace import read_config
from pytest_kvm.machine.devices.places import Place, place_of
from pytest_kvm.machine.devices.sysfs import GuestView, look_in_guest
from pytest_kvm.qemu.virtio import QEMUView, Queue, look_in_qemu
from pytest_kvm.virtio.config import Value, decode, size_of
from pytest_kvm.virtio.features import feature_names, status_names
from pytest_kvm.virtio.types import TYPES

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

VERSION_1 = 32
# What only the legacy interface offers (hw/virtio/virtio-bus.c, and virtio-blk.c, virtio-net.c).
_LEGACY = {"blk": {24, 27, 30, 7}, "net": {24, 27, 30, 6}}
_LEGACY_COMMON = {24, 27, 30}
_OLD = "QEMU before 7.2 does not tell what its virtio devices offer, nor which queues they have"
_NEWER = "name a newer one with --kvm-qemu=PATH"
# A driver that is just starting is looked at again.
_LOOKS = 3


@dataclass(frozen=True)
class VirtioState:
    """A virtio device as it was when it was looked at.

    ``type`` is ``net``, ``blk`` …, ``negotiated`` and ``status`` are names of the specification (VIRTIO_NET_F_MQ;
    DRIVER_OK), ``transport`` is ``pci`` or ``mmio``, ``legacy`` whether the driver uses the interface of virtio 0.9.
    ``driver`` is the guest's, None if it has none for it; ``vectors`` is how many MSI-X vectors it uses. ``config`` are
    the fields of the configuration space that the offered features bring, as they are there: a disk's ``capacity`` in
    sectors of 512 bytes; a field in a structure has a dot in its name (``topology.opt_io_size``).
    """

    id: str
    type: str
    negotiated: frozenset[str]
    status: frozenset[str]
    transport: str
    legacy: bool
    driver: str | None
    vectors: int
    config: Mapping[str, Value]
    _offered: frozenset[str] | None = field(repr=False)
    _queues: tuple[Queue, ...] | None = field(repr=False)

    @property
    def offered(self) -> frozenset[str]:
        """What the device offers to a driver of this kind, modern or legacy; raises HostError with QEMU before 7.2."""
        if self._offered is None:
            raise HostError(_OLD, hint=_NEWER)
        return self._offered

    @property
    def queues(self) -> tuple[Queue, ...]:
        """Its virtqueues, those that the driver does not use among them; raises HostError with QEMU before 7.2."""
        if self._queues is None:
            raise HostError(_OLD, hint=_NEWER)
        return self._queues


def look(vm: VM, name: str) -> VirtioState:
    """Return what a virtio device and its driver have agreed on.

    Raises SpecError for a device that is not virtio's, MachineError when the guest does not have it, NegotiationError
    when guest and QEMU do not tell the same.
    """
    place = place_of(vm, name)
    for _ in range(_LOOKS):
        guest = look_in_guest(vm, name, place)
        type_ = _type(guest)
        host = look_in_qemu(vm.qmp, name, type_)
        problems = _contradictions(type_, guest, host)
        if not problems:
            return _state(vm, name, place, guest, host)
    raise NegotiationError(
        f"VM {vm.name!r}: guest and QEMU do not tell the same about {name!r} (virtio-{type_}):\n"
        + "\n".join(f"  {line}" for line in problems),
        device=name,
        problems=problems,
    )


def _type(guest: GuestView) -> str:
    return TYPES.get(guest.device, f"type {guest.device}")


def _contradictions(type_: str, guest: GuestView, host: QEMUView | None) -> list[str]:
    if host is None:
        return []
    problems = []
    views = [("status", status_names(guest.status), host.status)]
    if guest.driver is not None:  # one that gave up leaves what it had negotiated until somebody resets the device
        names = (feature_names(type_, guest.features), feature_names(type_, host.negotiated))
        views.insert(0, ("features", *names))
    for what, here, there in views:
        mine, others = here - there, there - here
        # Bits that are newer than our tables: QEMU may have a name for what is a number in the guest.
        if host.nameless and len(mine) == len(host.nameless) and all(each.startswith("bit ") for each in mine):
            mine = frozenset()
        if mine:
            problems.append(f"{what} only in the guest: {', '.join(sorted(mine))}")
        if others:
            problems.append(f"{what} only in QEMU: {', '.join(sorted(others))}")
    return problems


def _state(vm: VM, name: str, place: Place, guest: GuestView, host: QEMUView | None) -> VirtioState:
    type_ = _type(guest)
    legacy = guest.driver is not None and VERSION_1 not in guest.features
    offered = None
    if host is not None:
        hidden = set(range(VERSION_1, 128)) if legacy else _LEGACY.get(type_, _LEGACY_COMMON)
        offered = feature_names(type_, host.offered - hidden) | host.nameless
    negotiated = feature_names(type_, guest.features)
    data = read_config(vm, place, guest, size_of(type_), legacy=legacy)
    return VirtioState(
        id=name,
        type=type_,
        negotiated=negotiated,
        status=status_names(guest.status),
        transport=place.bus,
        legacy=legacy,
        driver=guest.driver,
        vectors=guest.vectors,
        config=decode(type_, data, negotiated if offered is None else offered),
        _offered=offered,
        _queues=host.queues if host is not None else None,
    )
