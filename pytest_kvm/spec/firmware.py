"""The firmware that a machine begins with."""

from __future__ import annotations

import os

from pytest_kvm.spec.values import path
from pytest_kvm.spec.wording import Rejected, did_you_mean, expected_type, shown

FIRMWARE = ("bios", "uefi", "uefi-secure")
UEFI = ("uefi", "uefi-secure")
# As QEMU, its packages and those of EDK II name such files.
_SUFFIXES = (".bin", ".fd", ".rom", ".elf", ".img")


def names_firmware_file(value: object) -> bool:
    """Return whether a firmware is given by its file, rather than by its kind."""
    if not isinstance(value, str):
        return isinstance(value, os.PathLike)
    return os.sep in value or value.lower().endswith(_SUFFIXES)


def check_firmware(value: object) -> None:
    """Accept a kind of firmware, or the path of a file; raises Rejected."""
    if not isinstance(value, (str, os.PathLike)):
        raise expected_type("'bios', 'uefi', 'uefi-secure' or the path of a firmware's file", value)
    path(value)
    if not names_firmware_file(value) and value not in FIRMWARE:
        raise Rejected(f"unknown firmware {shown(value)}; {did_you_mean(str(value), FIRMWARE)}")
