"""What can this machine do?

For tests: ``machines``, ``cpu_models``, ``nic_models``, ``devices``, ``device_properties``, ``accelerators`` and
``firmware`` say what QEMU and this host offer, as in ``@pytest.mark.parametrize("model", host.nic_models())``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvm.host.queries import (
        Device,
        accelerators,
        cpu_models,
        device_properties,
        devices,
        firmware,
        machines,
        nic_models,
    )
    from pytest_kvm.host.uefi import Firmware
    from pytest_kvm.qemu.properties import Property

__all__ = [
    "Device",
    "Firmware",
    "Property",
    "accelerators",
    "cpu_models",
    "device_properties",
    "devices",
    "firmware",
    "machines",
    "nic_models",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pytest_kvm.host.queries"), name)
