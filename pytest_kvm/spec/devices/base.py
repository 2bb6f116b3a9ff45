"""What all declared devices have in common, and a device by QEMU's name for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.values import Check, identifier, one_of, optional, properties, text

# How a virtio device is attached; what QEMU appends to the device's name for it, and properties that it takes.
TRANSPORTS = ("pci", "pci-legacy", "pci-transitional", "pci-non-transitional", "mmio")


@dataclass(frozen=True, repr=False)
class BaseDevice:
    """A device that a machine is declared with.

    ``id`` is QEMU's id (default: the device's ``KIND`` and a number, in order of declaration), ``properties`` are
    those that QEMU's own introspection lists for the device (``-device NAME,help``).
    """

    KIND: ClassVar[str] = "device"
    # Properties that are set from fields.
    OWN: ClassVar[tuple[str, ...]] = ("id",)
    CHECKS: ClassVar[Mapping[str, Check]] = {}

    id: str | None = field(default=None, kw_only=True)
    properties: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        return short_repr(self, implied={})

    def _check(self) -> None:
        checks = {"id": optional(identifier), "properties": properties(*self.OWN), **self.CHECKS}
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        check_values(type(self).__name__, given, checks)


@checked("Device", postponable=True)
@dataclass(frozen=True, repr=False)
class Device(BaseDevice):
    """Any device, by QEMU's name for it, its ``driver``: ``Device("edu", id="edu0")``.

    Without an ``id`` it is ``device0`` … in order of declaration. What its properties refer to, such as a backend,
    comes with ``args=``. Raises SpecError when a value cannot be.
    """

    driver: str

    CHECKS: ClassVar[Mapping[str, Check]] = {
        "driver": text("QEMU's name of a device such as 'edu'", r"[A-Za-z0-9][A-Za-z0-9._-]*")
    }


@dataclass(frozen=True, repr=False)
class VirtioDevice(BaseDevice):
    """A virtio device.

    ``transport`` is ``pci`` (the default: QEMU's own choice of modern or transitional), ``pci-legacy`` (virtio 0.9
    only), ``pci-transitional`` (both), ``pci-non-transitional`` (virtio 1 only) or ``mmio`` (the default, and all there
    is, on a microvm).
    """

    # QEMU's name without the transport.
    BASE: ClassVar[str] = ""

    transport: str | None = field(default=None, kw_only=True)

    def __init_subclass__(cls) -> None:
        cls.CHECKS = {"transport": optional(one_of(*TRANSPORTS)), **cls.CHECKS}
