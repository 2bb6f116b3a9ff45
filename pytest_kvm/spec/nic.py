"""A network interface of a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.devices.base import TRANSPORTS
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.values import Check, identifier, one_of, optional, properties, text
from pytest_kvm.spec.wording import Rejected, expected, expected_type, shown

MAC_WANTED = "a MAC address such as '52:54:00:12:34:56'"
MAC_TEXT = re.compile(r"[0-9a-f]{2}(?P<separator>[:-])[0-9a-f]{2}(?:(?P=separator)[0-9a-f]{2}){4}", re.IGNORECASE)


def _mac(value: object) -> None:
    if not isinstance(value, str):
        raise expected_type(MAC_WANTED, value)
    if not MAC_TEXT.fullmatch(value):
        raise expected(MAC_WANTED, value)
    octets = bytes.fromhex(re.sub("[:-]", "", value))
    if octets[0] & 1:
        raise Rejected(f"{shown(value)} is a multicast address: the first octet of an interface's must be even")
    if not any(octets):
        raise Rejected(f"{shown(value)} is no address of an interface")


CHECKS: dict[str, Check] = {
    "model": text("the name of a network device such as 'virtio' or 'e1000e'", r"[A-Za-z][A-Za-z0-9._-]*"),
    "mac": optional(_mac),
    "transport": optional(one_of(*TRANSPORTS)),
    "id": optional(identifier),
    "properties": properties("id", "netdev", "mac"),
}


@checked("Nic", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class Nic:
    """A network interface on the user network.

    ``model`` is QEMU's name of the device, or a short form such as ``virtio`` (the default), ``e1000``,
    ``rtl8139``. ``mac`` is the address (default: a unique ``52:54:00:…``), ``transport`` how one of virtio is
    attached (as for VirtioDevice), ``id`` QEMU's id (default ``net0`` …), ``properties`` more properties of
    the device.

    Raises SpecError when a value cannot be.
    """

    model: str = "virtio"
    mac: str | None = None
    transport: str | None = None
    id: str | None = None
    properties: Mapping[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return short_repr(self, implied={})

    def _check(self) -> None:
        check_values("Nic", {name: getattr(self, name) for name in CHECKS}, CHECKS)
        if self.transport is not None and self.model != "virtio" and not holds_reference(self.model):
            raise SpecError(
                f"Nic(model={shown(self.model)}, transport={shown(self.transport)}): only virtio has transports; "
                "leave one of them out"
            )
