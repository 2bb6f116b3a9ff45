"""Which accelerator really works here, and how fast: believed only when a guest made progress with it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pytest_kvm.errors import AcceleratorUnavailable
from pytest_kvm.files import write_atomically
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.device import device_trouble, guest_fix
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.probe import Result, cannot_probe, probe
from pytest_kvm.qemu.binary import QEMUBinary

# Where it works, it needs a twentieth of this.
DEADLINE = 2.0
# A loaded host may take long to emulate; what is waited for is only how fast it is.
EMULATION_DEADLINE = 20.0
# How long the probe guest takes where the usual limits hold, in seconds, and how much more time emulated guests get.
_PROBE_SECONDS = {"tcg": 0.5}
_OTHERS_SECONDS = 0.25
_EMULATED = 2.0
_MOST = 8.0
_FORMAT = 2


@dataclass(frozen=True)
class Choice:
    """An accelerator, and why it was chosen (empty when there is nothing to explain).

    ``fix`` is what would make the better one work, a command a line, or an empty text.
    """

    name: str
    reason: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def native() -> str:
    """Return the accelerator that uses this host's CPU: ``kvm``, on macOS ``hvf``."""
    return "hvf" if platform.system() == "Darwin" else "kvm"


def choose(accel: str, binary: QEMUBinary, *, again: bool = False) -> Choice:
    """Turn the marker's ``accel`` into an accelerator.

    ``auto`` takes KVM (HVF on macOS) where a probe guest makes progress with it, else TCG. ``kvm`` and ``hvf`` demand
    it. QEMU's properties (``tcg,thread=single``) are passed over here. ``again`` looks anew, instead of at what is
    remembered. Raises AcceleratorUnavailable saying what is wrong, and what mends it.
    """
    name = accel.partition(",")[0]
    if name == "auto":
        found = _auto(_result(native(), binary, again=again))
        if found.name == "tcg":
            _demand("tcg", _result("tcg", binary, again=again), other=found.reason)
        return found
    if name not in ("tcg", native()):
        raise AcceleratorUnavailable(
            f"accel={name!r} was asked for, which is not of this system: {native()!r} is",
            hint="use accel='auto' for what is here",
        )
    _demand(name, _result(name, binary, again=again))
    return Choice(name)


def remembered(binary: QEMUBinary) -> Choice | None:
    """Return what ``auto`` was found to mean with this binary since the host's boot, None if nobody looked yet."""
    result = _unprobable(native(), binary) or _recall(native(), binary)
    return None if result is None else _auto(result)


def trouble_with(name: str, binary: QEMUBinary) -> str:
    """Return why an accelerator does not work here, or an empty text; runs a probe guest the first time."""
    if name not in ("tcg", native()):
        return f"not tried: this system's is {native()}"
    return _result(name, binary).trouble


def pace(accel: str, binary: QEMUBinary) -> float:
    """Return how many times the usual limits a machine gets with an accelerator, measured once with a probe guest.

    1 is a guest on real hardware. Emulated ones get at least 2, slow hosts up to 8.
    """
    name = accel.partition(",")[0]
    least = _EMULATED if name == "tcg" else 1.0
    seconds = _result(name, binary).seconds or 0.0
    return min(_MOST, least * max(1.0, seconds / _PROBE_SECONDS.get(name, _OTHERS_SECONDS)))


def _auto(result: Result) -> Choice:
    if result.trouble:
        return Choice("tcg", f"{native()}: {result.trouble}", result.fix)
    return Choice(native())


def _demand(name: str, result: Result, *, other: str = "") -> None:
    """Raise AcceleratorUnavailable when an accelerator does not work; ``other`` is why it is not another one."""
    if not result.trouble:
        return
    if name == "tcg":
        if result.seconds is not None or result.unknown:
            return  # it is slow, or nobody knows
        hint = "name a QEMU that can emulate with --kvm-qemu=PATH"
    else:
        hint = f"use accel='auto' to run with TCG (slower) where {name} does not work"
        hint = f"{result.fix}\n{hint}" if result.fix else hint
    raise AcceleratorUnavailable(
        f"accel={name!r} was asked for, and does not work here: {result.trouble}"
        if not other
        else f"no accelerator works here; {other}; tcg: {result.trouble}",
        hint=hint,
    )


def _unprobable(name: str, binary: QEMUBinary) -> Result | None:
    """Return what there is to say where no guest can be run, None where one can."""
    device = device_trouble() if name == "kvm" else None
    if device is not None:
        return Result(device.reason, fix=device.fix)
    if platform.machine() not in ("x86_64", "i686"):
        return Result(f"no probe guest for {platform.machine()} yet", unknown=True)
    trouble = cannot_probe(binary)
    return Result(trouble, unknown=True) if trouble else None


def _result(name: str, binary: QEMUBinary, *, again: bool = False) -> Result:
    result = _unprobable(name, binary) or (None if again else _recall(name, binary))
    if result is None:
        result = probe(binary, name, deadline=EMULATION_DEADLINE if name == "tcg" else DEADLINE)
        if name == "kvm" and result.trouble:
            result = replace(result, fix=guest_fix(result.trouble))
        _remember(name, binary, result)
    return result


def _recall(name: str, binary: QEMUBinary) -> Result | None:
    try:
        return Result(**json.loads(_memory_file().read_text())[_key(name, binary)])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never probed, or damaged: probe


def _remember(name: str, binary: QEMUBinary, result: Result) -> None:
    path = _memory_file()
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = {}
    boot = boot_id()
    entries = {key: value for key, value in found.items() if key.startswith(boot)} if isinstance(found, dict) else {}
    entries[_key(name, binary)] = asdict(result)
    with contextlib.suppress(OSError):  # probing again next time is all that follows
        write_atomically(path, json.dumps(entries).encode())


def _memory_file() -> Path:
    return cache_dir() / "host" / "accelerators.json"


def _key(name: str, binary: QEMUBinary) -> str:
    return f"{boot_id()}:{os.getuid()}:{_FORMAT}:{name}:{binary.identity}"
