"""Devices that a test declares, or plugs into a running machine."""

from __future__ import annotations

from pytest_kvm.spec.devices.base import BaseDevice, Device
from pytest_kvm.spec.devices.board import CPU, Dimm, VirtioMem, VirtioPmem
from pytest_kvm.spec.devices.virtio import (
    VirtioBalloon,
    VirtioConsole,
    VirtioCrypto,
    VirtioGPU,
    VirtioIOMMU,
    VirtioKeyboard,
    VirtioMouse,
    VirtioMultitouch,
    VirtioRng,
    VirtioSCSI,
    VirtioSerial,
    VirtioSerialPort,
    VirtioSound,
    VirtioTablet,
)

# All that can be declared.
CLASSES: tuple[type[BaseDevice], ...] = (
    CPU,
    Device,
    Dimm,
    VirtioBalloon,
    VirtioConsole,
    VirtioCrypto,
    VirtioGPU,
    VirtioIOMMU,
    VirtioKeyboard,
    VirtioMem,
    VirtioMouse,
    VirtioMultitouch,
    VirtioPmem,
    VirtioRng,
    VirtioSCSI,
    VirtioSerial,
    VirtioSerialPort,
    VirtioSound,
    VirtioTablet,
)

__all__ = [
    "CLASSES",
    "CPU",
    "BaseDevice",
    "Device",
    "Dimm",
    "VirtioBalloon",
    "VirtioConsole",
    "VirtioCrypto",
    "VirtioGPU",
    "VirtioIOMMU",
    "VirtioKeyboard",
    "VirtioMem",
    "VirtioMouse",
    "VirtioMultitouch",
    "VirtioPmem",
    "VirtioRng",
    "VirtioSCSI",
    "VirtioSerial",
    "VirtioSerialPort",
    "VirtioSound",
    "VirtioTablet",
]
