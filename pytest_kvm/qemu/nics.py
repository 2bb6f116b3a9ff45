"""The part of the command line that is about network cards."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.qemu.devices import transport_settings, virtio_driver
from pytest_kvm.qemu.plan import Plan, PlannedNic
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.boot import parse_boot

_MODELS = {"rtl8139": "rtl8139", "ne2k": "ne2k_pci"}


def nic_arguments(planned: PlannedNic, plan: Plan, kind: str) -> Iterator[str]:
    """Yield the options for a network card, what is behind it first."""
    text = option("user", backend(planned, internet=plan.spec.internet))
    for forward in planned.forwards:
        text += "," + option(f"hostfwd={forward}")
    yield from ("-netdev", text)
    # Nobody boots from it: its ROM need not be installed, nor run.
    bare = plan.kernel is not None and not _boots_from_network(plan.spec.boot)
    driver, settings = device(planned, kind, rom=not bare)
    yield from ("-device", option(driver, settings))


def backend(planned: PlannedNic, *, internet: bool) -> dict[str, object]:
    """Return the settings of a card's netdev; each is on a network of its own."""
    made: dict[str, object] = {"id": planned.id}
    if planned.number:  # the first one has QEMU's default, 10.0.2.0/24
        made["net"] = f"10.0.{planned.number + 2}.0/24"
    made["restrict"] = None if internet else True
    return made


def device(planned: PlannedNic, kind: str, *, rom: bool = True) -> tuple[str, dict[str, object]]:
    """Return the card's device: QEMU's driver and its properties (None: left out)."""
    nic = planned.nic
    settings: dict[str, object] = {"id": planned.id, "netdev": planned.id, "mac": planned.mac}
    if planned.port:
        settings["bus"] = planned.port
    driver = _MODELS.get(nic.model, nic.model)
    if nic.model == "virtio" or (kind == "microvm" and driver == "virtio-net-pci"):
        driver = virtio_driver("virtio-net", nic.transport, kind, repr(nic))
        settings |= transport_settings(nic.transport)
    if not rom and driver != "virtio-net-device":
        settings["romfile"] = ""
    return driver, {**settings, **nic.properties}


def _boots_from_network(boot: str | None) -> bool:
    parsed = parse_boot(boot) if boot is not None else None
    return parsed is not None and "n" in f"{parsed.order or ''}{parsed.once or ''}"
