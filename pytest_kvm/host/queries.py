"""What do this host and its QEMU offer? Answers for ``parametrize`` and ``skipif``, at collection and anywhere else.

QEMU is asked once, and its answers are remembered as long as its file stays the same. Where there is none, the answers
are empty, with a warning: a test file can be collected anywhere. ``qemu`` names another binary than the usual one, by
its path or its name on PATH.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.host import accel, uefi
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.host.uefi import Firmware
from pytest_kvm.qemu.binary import QEMUBinary, ask, find_qemu
from pytest_kvm.qemu.properties import Property, properties_of


@dataclass(frozen=True)
class Device:
    """A device of ``-device``: its ``bus`` ("": none), its ``category`` (``Network``), QEMU's ``description``."""

    bus: str
    category: str
    description: str


def machines(qemu: str | None = None) -> Mapping[str, str]:
    """Return the machine types (``-machine help``), each with QEMU's description."""
    text = _answer(qemu, "-machine", "help")
    return dict(re.findall(r"^(\S+) {2,}(.*)$", text, re.MULTILINE))


def cpu_models(qemu: str | None = None) -> Mapping[str, str]:
    """Return the CPU models (``-cpu help``), each with QEMU's description; not every host can run each of them."""
    models, _, _ = _answer(qemu, "-cpu", "help").partition("\n\n")
    # QEMU before 9 puts the architecture's name before each.
    lines = re.findall(r"^(?: {2}|\w+ +)(\S+) *(.*)$", models, re.MULTILINE)
    return {name: text.strip() for name, text in lines if not name.endswith("s:")}


def nic_models(qemu: str | None = None) -> Mapping[str, str]:
    """Return the models of network cards (``-nic model=help``), each with QEMU's description."""
    _, _, names = _answer(qemu, "-nic", "model=help").partition("\n")
    known = devices(qemu) if names else {}
    return {name: known[name].description if name in known else "" for name in names.split()}


def devices(qemu: str | None = None) -> Mapping[str, Device]:
    """Return the devices (``-device help``)."""
    found = {}
    category = ""
    for line in _answer(qemu, "-device", "help").splitlines():
        if line.endswith(" devices:"):
            category = line.removesuffix(" devices:")
            continue
        device = re.match(r'name "([^"]+)"(?:, bus ([^,]+))?.*?(?:, desc "(.*)")?$', line)
        if device is not None:
            found[device[1]] = Device(device[2] or "", category, device[3] or "")
    return found


def device_properties(device: str, qemu: str | None = None) -> Mapping[str, Property]:
    """Return the properties of a device (``-device NAME,help``), by their names; none of one that it does not have."""
    if device not in devices(qemu):
        return {}
    return properties_of(Path(), device, lambda _, question, __: _answer(qemu, *question.split()))


def accelerators(qemu: str | None = None) -> Mapping[str, str]:
    """Return the accelerators that QEMU has (``-accel help``), each with why it does not work here ("": it does).

    A probe guest finds out; the first time, that may take 3 s.
    """
    binary = _find(qemu)
    if binary is None:
        return {}
    _, _, names = _answer(qemu, "-accel", "help").partition("\n")
    return {name: accel.trouble_with(name, binary) for name in names.split()}


def firmware(qemu: str | None = None) -> list[Firmware]:
    """Return the UEFI firmware that is installed, preferred ones first; SeaBIOS, QEMU's default, is always there."""
    binary = _find(qemu)
    return [] if binary is None else uefi.installed(uefi.directories(binary.data))


def _find(qemu: str | None, *, depth: int = 3) -> QEMUBinary | None:
    """Return the binary; ``depth`` is how far above the warning whoever wants to know is."""
    try:
        return find_qemu(qemu, memory=_memory())
    except QEMUNotFound as error:
        warnings.warn(str(error), stacklevel=depth)
        return None


def _answer(qemu: str | None, *arguments: str) -> str:
    binary = _find(qemu, depth=4)
    if binary is None:
        return ""

    def find(path: Path) -> Any:
        return ask(path, *arguments)

    try:
        return str(Remembered(_memory()).about(binary.path, " ".join(arguments), find))
    except (QEMUNotFound, OSError) as error:
        warnings.warn(str(error), stacklevel=3)
        return ""


def _memory() -> Path:
    return cache_dir() / "host"
