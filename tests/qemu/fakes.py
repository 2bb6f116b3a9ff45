"""Programs that stand in for QEMU where the real one cannot be made to do something on demand."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.qemu.binary import QEMUBinary

DEVICES = frozenset(
    {
        *("pcie-root-port", "pvpanic-pci", "vmgenid", "virtio-balloon-pci", "virtio-balloon-device"),
        *("virtio-rng-pci", "virtio-rng-device", "isa-debug-exit"),
    }
)

ANSWERS = """case $1 in
-version) echo 'QEMU emulator version 9.1.2 (Debian 1:9.1.2+ds-1)';;
-device) echo 'name "virtio-rng-pci", bus PCI'; echo 'name "pvpanic-pci", bus PCI, desc "it"';;
-machine) echo 'Supported machines are:'; echo 'q35                  Standard PC (alias of pc-q35-9.1)'
          echo 'none                 empty machine';;
-L) echo '/usr/share/qemu'; echo '/usr/share/seabios';;
-help) echo '-sandbox on[,obsolete=allow|deny]';;
*) exit 64;;
esac
"""


def program(path: Path, script: str) -> Path:
    """Make an executable shell script at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path


def binary(
    path: Path = Path("/usr/bin/qemu"),
    *,
    version: tuple[int, ...] = (7, 2, 0),
    devices: frozenset[str] = DEVICES,
    sandbox: bool = True,
) -> QEMUBinary:
    """Return what would be known about a QEMU."""
    return QEMUBinary(
        path=path,
        version=version,
        version_text=".".join(map(str, version)),
        devices=devices,
        machines=frozenset({"q35", "none"}),
        sandbox=sandbox,
    )
