"""What the doctor looks at: this host, with the QEMU that is used on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.qemu.binary import QEMUBinary


@dataclass(frozen=True)
class Subject:
    """``qemu`` is the name that was given for it (None: the usual ones), ``binary`` what was found, or ``trouble``."""

    qemu: str | None
    cache: Path
    binary: QEMUBinary | None = None
    trouble: QEMUNotFound | None = None
