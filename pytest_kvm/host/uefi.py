"""Which UEFI firmware is installed for QEMU's guests, as its packages describe it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """A firmware image: what QEMU's docs/interop/firmware.json says about it.

    ``types`` are its interfaces (``uefi``, ``bios``), ``architectures`` and ``machines`` what it is for (machines as
    patterns, ``pc-q35-*``), ``executable`` its file, ``nvram`` the template for the file that keeps its variables (None
    where it needs none), ``features`` such as ``secure-boot`` and ``enrolled-keys``. ``device`` is where it goes
    (``flash``, ``memory``, ``kernel``), ``format`` and ``nvram_format`` are those of the files.
    """

    description: str
    types: frozenset[str]
    architectures: frozenset[str]
    machines: frozenset[str]
    executable: Path
    nvram: Path | None
    features: frozenset[str]
    device: str = "flash"
    format: str = "raw"
    nvram_format: str = "raw"

    @property
    def secure(self) -> bool:
        """Whether it refuses what is not signed with the keys that it comes with."""
        return {"secure-boot", "enrolled-keys"} <= self.features

    def fits(self, architecture: str, machine: str) -> bool:
        """Return whether it is for a machine type, under its versioned name (``pc-q35-7.2``)."""
        return architecture in self.architectures and any(fnmatch(machine, pattern) for pattern in self.machines)


def directories(data: Iterable[Path]) -> list[Path]:
    """Return where descriptions are looked for, those that win first; ``data`` are QEMU's own directories."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    found = [own / "qemu" / "firmware", Path("/etc/qemu/firmware")]
    found += [folder / "firmware" for folder in data]
    return [*found, Path("/usr/share/qemu/firmware")]


def installed(folders: Iterable[Path]) -> list[Firmware]:
    """Return the firmware that the descriptions in these directories name and that is there, preferred ones first.

    A description wins over those of its name in later directories; an empty one hides them. What cannot be read as one
    is passed over.
    """
    described: dict[str, Path] = {}
    for folder in folders:
        try:
            entries = sorted(path for path in folder.iterdir() if path.suffix == ".json")
        except OSError:
            continue
        for path in entries:
            described.setdefault(path.name, path)
    found = [_read(described[name]) for name in sorted(described)]
    return [each for each in found if each is not None and each.executable.exists()]


def _read(path: Path) -> Firmware | None:
    try:
        entry: dict[str, Any] = json.loads(path.read_bytes())
        mapping, targets = entry["mapping"], entry["targets"]
        nvram = mapping.get("nvram-template")
        # A flash device has an executable; firmware that is loaded as memory or as a kernel has a file name.
        executable = mapping.get("executable", mapping)
        return Firmware(
            description=str(entry["description"]),
            types=frozenset(map(str, entry["interface-types"])),
            architectures=frozenset(str(target["architecture"]) for target in targets),
            machines=frozenset(str(machine) for target in targets for machine in target["machines"]),
            executable=Path(executable["filename"]),
            nvram=Path(nvram["filename"]) if nvram is not None else None,
            features=frozenset(map(str, entry["features"])),
            device=str(mapping["device"]),
            format=str(executable.get("format", "raw")),
            nvram_format=str(nvram.get("format", "raw")) if nvram is not None else "raw",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
