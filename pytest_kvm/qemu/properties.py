"""Which properties QEMU's devices have: its own introspection, asked once for each device."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.qemu.binary import ask

# ``name=<type>  - description (default: value)``, all of it but the name optional.
_LINE = re.compile(r"^ +(?P<name>[^ =]+)=<(?P<type>[^>]*)>(?: +- ?(?P<text>.*?)(?: ?\(default: (?P<default>.*)\))?)?$")


@dataclass(frozen=True)
class Property:
    """A property of a device: its ``type`` (``bool``, ``uint16``, ``str`` …), QEMU's ``description`` and ``default``.

    ``default`` is QEMU's text, None where it names none.
    """

    type: str
    description: str = ""
    default: str | None = None


def properties_of(
    path: Path, driver: str, remember: Callable[[Path, str, Callable[[Path], object]], object]
) -> Mapping[str, Property]:
    """Return what QMP's device-list-properties has on a device, as ``-device DRIVER,help`` prints it.

    ``remember`` keeps QEMU's answer about its file. Raises QEMUNotFound when QEMU does not answer.
    """
    text = str(remember(path, f"-device {driver},help", lambda binary: ask(binary, "-device", f"{driver},help")))
    return {
        line["name"]: Property(line["type"], (line["text"] or "").strip(), line["default"])
        for line in map(_LINE.match, text.splitlines())
        if line is not None
    }
