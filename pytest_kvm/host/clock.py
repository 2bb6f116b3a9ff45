"""How fast the host's time stamp counter runs."""

from __future__ import annotations

import re
from pathlib import Path

_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/tsc_freq_khz")
_CPUINFO = Path("/proc/cpuinfo")


def tsc_khz() -> int | None:
    """Return the frequency of the host's time stamp counter in kHz, about; None where nobody says it."""
    if _FREQUENCY.exists():  # few kernels have it
        return int(_FREQUENCY.read_text())
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _CPUINFO.read_text(), re.MULTILINE)
    return round(float(found[1]) * 1000) if found else None
