"""Which accelerator really works here: believed only when a guest made progress with it.

A device node that opens and a QEMU that starts prove nothing: some hosts emulate the guest instruction by instruction.
So a firmware of 64 KiB of ours counts in a loop and reports through isa-debug-exit; KVM does that in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import AcceleratorUnavailable
from pytest_kvm.files import write_atomically
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.process import dying_with_parent

DEVICE = "/dev/kvm"
DEADLINE = 2.0
# 60 million instructions: some 30 ms with KVM, a minute and more where each one is emulated on its own.
_ROUNDS = 20_000_000
_RIGHT, _WRONG = 0x20, 0x21
_FORMAT = 1


@dataclass(frozen=True)
class Choice:
    """An accelerator, ``kvm`` or ``tcg``, and why it was chosen (empty when there is nothing to explain)."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def choose(accel: str, binary: QEMUBinary, *, again: bool = False) -> Choice:
    """Turn the marker's ``accel`` into an accelerator.

    ``auto`` takes KVM where a probe guest makes progress with it, else TCG. ``kvm`` demands it: raises
    AcceleratorUnavailable saying why not. QEMU's properties (``tcg,thread=single``) are passed over here. ``again``
    looks anew, instead of at what is remembered.
    """
    name = accel.partition(",")[0]
    if name not in ("auto", "kvm"):
        return Choice(name)
    verdict = remembered(binary)
    if verdict is None or (again and not _node_trouble()):
        verdict = _probe_and_remember(binary)
    if name == "kvm" and verdict.name != "kvm":
        raise AcceleratorUnavailable(
            f"accel='kvm' was asked for, and does not work here: {verdict.reason.removeprefix('kvm: ')}",
            hint="use accel='auto' to run with TCG (slower) where KVM does not work",
        )
    return verdict


def remembered(binary: QEMUBinary) -> Choice | None:
    """Return what ``auto`` was found to mean with this binary since the host's boot, None if nobody looked yet."""
    missing = _node_trouble()
    if missing:
        return Choice("tcg", missing)
    try:
        entry = json.loads(_memory_file().read_text())[_key(binary)]
        return Choice(entry["name"], entry["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never probed, or damaged: probe


def _probe_and_remember(binary: QEMUBinary) -> Choice:
    trouble = probe(binary)
    verdict = Choice("tcg", f"kvm: {trouble}") if trouble else Choice("kvm")
    path = _memory_file()
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = {}
    boot = boot_id()
    entries = {key: value for key, value in found.items() if key.startswith(boot)} if isinstance(found, dict) else {}
    entries[_key(binary)] = {"name": verdict.name, "reason": verdict.reason}
    with contextlib.suppress(OSError):  # probing again next time is all that follows
        write_atomically(path, json.dumps(entries).encode())
    return verdict


def _node_trouble() -> str:
    if platform.machine() not in ("x86_64", "i686"):
        return f"kvm: no probe guest for {platform.machine()} yet"
    if not Path(DEVICE).exists():
        return f"kvm: no {DEVICE}"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"kvm: no permission for {DEVICE}"
    return ""


def _memory_file() -> Path:
    return cache_dir() / "host" / "accelerators.json"


def _key(binary: QEMUBinary) -> str:
    return f"{boot_id()}:{os.getuid()}:{_FORMAT}:{binary.identity}"


def probe(binary: QEMUBinary, accel: str = "kvm", *, deadline: float = DEADLINE) -> str:
    """Run the probe guest; return what is wrong with the accelerator, or an empty text.

    ``deadline`` is in seconds.
    """
    with make_run_dir() as folder:
        firmware = folder / "probe.bin"
        firmware.write_bytes(_firmware())
        command = [str(binary.path), "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]
        command += [
            "-accel",
            accel,
            "-m",
            "16",
            "-bios",
            str(firmware),
            "-device",
            "isa-debug-exit,iobase=0xf4",
        ]
        try:
            result = subprocess.run(
                dying_with_parent(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline, check=False
            )
        except subprocess.TimeoutExpired:
            return f"opens, but a probe guest did not finish in {deadline:g} s"
    if result.returncode == _status(_RIGHT):
        return ""
    if result.returncode == _status(_WRONG):
        return "a probe guest calculated wrongly"
    said = result.stderr.decode(errors="backslashreplace").strip().splitlines()
    return f"a probe guest did not run: {said[-1] if said else f'QEMU ended with {result.returncode}'}"


def _status(value: int) -> int:
    # isa-debug-exit ends QEMU with (value << 1) | 1 (hw/misc/debugexit.c).
    return value << 1 | 1


def _firmware() -> bytes:
    """Return 64 KiB of real-mode firmware: add 3, ``_ROUNDS`` times, check the sum, leave through port 0xf4."""
    code = b"\x66\xb9" + struct.pack("<I", _ROUNDS)  # mov ecx, rounds
    code += b"\x66\x31\xc0"  # xor eax, eax
    code += b"\x66\x05\x03\x00\x00\x00"  # again: add eax, 3
    code += b"\x66\x49"  # dec ecx
    code += b"\x75\xf6"  # jnz again
    code += b"\x66\x3d" + struct.pack("<I", 3 * _ROUNDS)  # cmp eax, 3 * rounds
    code += bytes([0xB0, _RIGHT])  # mov al, right
    code += b"\x74\x02"  # je leave
    code += bytes([0xB0, _WRONG])  # mov al, wrong
    code += b"\xe6\xf4"  # leave: out 0xf4, al
    code += b"\xf4\xeb\xfd"  # hlt, for ever
    reset = b"\xea\x00\x00\x00\xf0"  # at the reset vector: jmp f000:0000
    return code.ljust(0xFFF0, b"\xf4") + reset.ljust(16, b"\xf4")
