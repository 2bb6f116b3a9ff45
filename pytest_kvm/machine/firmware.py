"""Which firmware a machine begins with, and where that keeps its variables."""

from __future__ import annotations

import errno
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.host.uefi import Firmware, directories, installed
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import DEFAULT_MACHINE, PlannedFirmware, machine_kind
from pytest_kvm.spec.firmware import UEFI, names_firmware_file
from pytest_kvm.spec.vm import VMSpec

VARIABLES = "firmware-variables"
_INSTALL = "install it with 'pytest-kvm doctor --install --with uefi', or name a file: firmware='/path/OVMF.fd'"
# What QEMU's short names stand for begins so.
_VERSIONED = {"q35": "pc-q35-", "pc": "pc-i440fx-"}


def find_firmware(spec: VMSpec, binary: QEMUBinary) -> PlannedFirmware | None:
    """Return the firmware that a machine has in place of QEMU's own, None for that one.

    Raises SpecError where a machine cannot have it, HostError when none that fits is installed.
    """
    wanted = spec.firmware
    if wanted is not None and names_firmware_file(wanted):
        return PlannedFirmware(code=Path(wanted).absolute(), flash=False)
    if wanted not in UEFI:
        return None
    kind = machine_kind(spec.machine)
    if wanted == "uefi-secure" and kind in ("pc", "microvm"):
        raise SpecError(
            f"vm(machine={spec.machine!r}, firmware={wanted!r}): secure boot keeps its variables from the guest with "
            "SMM, for which OVMF needs the machine q35",
            keyword="firmware",
            value=wanted,
        )
    uefi = [each for each in installed(directories(binary.data)) if "uefi" in each.types]
    found = _choose(uefi, _architecture(binary), _versioned(spec, binary), secure=wanted == "uefi-secure")
    if found is None:
        raise _missing(spec, uefi)
    smm = "requires-smm" in found.features
    return PlannedFirmware(
        code=found.executable,
        code_format=found.format,
        flash=found.device == "flash",
        template=found.nvram,
        variables_format=found.nvram_format,
        smm=smm and "smm=" not in (spec.machine or ""),
        secure=smm,
    )


def _choose(found: Sequence[Firmware], architecture: str, machine: str, *, secure: bool) -> Firmware | None:
    """Return the first that fits; without secure boot, rather one that does not know it than one without keys."""
    fitting = [
        each
        for each in found
        if each.device != "kernel" and each.executable.is_file() and each.fits(architecture, machine)
    ]
    if secure:
        return next((each for each in fitting if each.secure), None)
    candidates = [each for each in fitting if "enrolled-keys" not in each.features]
    # What has variables before what has none: that is meant for confidential guests.
    candidates.sort(key=lambda each: ("secure-boot" in each.features, each.nvram is None))
    return next(iter(candidates), None)


def _missing(spec: VMSpec, found: Sequence[Firmware]) -> HostError:
    machine = spec.machine or DEFAULT_MACHINE
    what = "UEFI firmware" if spec.firmware == "uefi" else "UEFI firmware with secure boot and enrolled keys"
    there = "".join(
        f"\n{each.executable}: for {', '.join(sorted(each.machines))}{' (secure boot, keys)' if each.secure else ''}"
        for each in found
    )
    return HostError(
        f"vm(firmware={spec.firmware!r}): no {what} for machine {machine!r} is installed; there is "
        f"{'only' if there else 'none at all'}{there}",
        hint=_INSTALL,
    )


def _architecture(binary: QEMUBinary) -> str:
    _, _, named = binary.path.name.partition("qemu-system-")
    return named or platform.machine()


def _versioned(spec: VMSpec, binary: QEMUBinary) -> str:
    """Return the machine type's name as descriptions of firmware know it, with a version."""
    name = (spec.machine or DEFAULT_MACHINE).split(",")[0].removeprefix("type=")
    prefix = _VERSIONED.get(name)
    if prefix is None:
        return name
    return next((machine for machine in sorted(binary.machines) if machine.startswith(prefix)), prefix)


def with_variables(firmware: PlannedFirmware | None, folder: Path) -> PlannedFirmware | None:
    """Return the firmware with variables of the machine's own, as they are at first, in its ``folder``.

    Raises HostError when they cannot be written.
    """
    if firmware is None or firmware.template is None:
        return firmware
    own = folder / VARIABLES
    try:
        own.unlink(missing_ok=True)
        shutil.copyfile(firmware.template, own)
        own.chmod(0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            hint = "set TMPDIR to a directory with more room"
        else:
            hint = "install the firmware's package again: pytest-kvm doctor --install --with uefi"
        raise HostError(
            f"{firmware.template} cannot be copied to {os.fspath(own)}: {error.strerror}", hint=hint
        ) from error
    return replace(firmware, variables=own)
