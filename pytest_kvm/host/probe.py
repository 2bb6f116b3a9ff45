"""Does an accelerator run guests? A guest of 256 bytes does a fixed amount of work and reports.

A device node that opens and a QEMU that starts prove nothing: some hosts emulate the guest instruction by instruction,
or stop at one that their emulator does not know. So a firmware of ours goes into long mode, adds a word of memory
``ROUNDS`` times, exchanges pairs of words with CMPXCHG16B, counts with SSE2, checks all of it and leaves through
isa-debug-exit.
"""

from __future__ import annotations

import struct
import subprocess
import time
from dataclasses import dataclass

from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.process import dying_with_parent

# 300 million instructions: 0.1 s with KVM, 0.3 s with TCG, minutes where each one is emulated on its own.
ROUNDS = 100_000_000
_PAIRS = 0x1000
_RIGHT, _WRONG = 0x20, 0x21
_BOARDS = ("pc", "q35")
_EXIT = "isa-debug-exit"


@dataclass(frozen=True)
class Result:
    """What a probe guest has shown: what is wrong ("": nothing), and what mends it, a command a line.

    ``seconds`` is how long the guest took, at least; None: not known. ``unknown`` says that none could be run.
    """

    trouble: str = ""
    fix: str = ""
    seconds: float | None = None
    unknown: bool = False


def cannot_probe(binary: QEMUBinary) -> str:
    """Return why this QEMU cannot run the probe guest, or an empty text."""
    if not any(board in binary.machines for board in _BOARDS):
        return f"there is no probe guest for {binary.path.name}"
    if _EXIT not in binary.devices:
        return f"{binary.path.name} has no {_EXIT}, which a probe guest needs"
    return ""


def probe(binary: QEMUBinary, accel: str, *, deadline: float) -> Result:
    """Run the probe guest with an accelerator, for at most ``deadline`` seconds; ``cannot_probe`` comes before that."""
    board = next(board for board in _BOARDS if board in binary.machines)
    with make_run_dir() as folder:
        firmware = folder / "probe.bin"
        firmware.write_bytes(_firmware())
        command = [str(binary.path), "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-machine", board, "-accel", accel, "-m", "16", "-bios", str(firmware)]
        command += ["-device", f"{_EXIT},iobase=0xf4"]
        began = time.monotonic()
        try:
            result = subprocess.run(
                dying_with_parent(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline, check=False
            )
        except subprocess.TimeoutExpired:
            return Result(f"opens, but a probe guest did not finish in {deadline:g} s", seconds=deadline)
        except OSError as error:
            return Result(f"a probe guest did not run: {error}")
        seconds = time.monotonic() - began
    if result.returncode == _status(_RIGHT):
        return Result(seconds=seconds)
    if result.returncode == _status(_WRONG):
        return Result("a probe guest calculated wrongly")
    said = result.stderr.decode(errors="backslashreplace").strip().splitlines()
    return Result(f"a probe guest did not run: {said[-1] if said else f'QEMU ended with {result.returncode}'}")


def _status(value: int) -> int:
    # isa-debug-exit ends QEMU with (value << 1) | 1 (hw/misc/debugexit.c).
    return value << 1 | 1


# Linear addresses in RAM: the page tables, one after the other, and a place to work; where the firmware is.
_PML4, _PDPT, _PD, _WORK, _ROM = 0x1000, 0x2000, 0x3000, 0x4000, 0xF0000
# Offsets in the code, as assembled.
_LONG, _GDTR, _ONE, _GDT = 0x58, 0xD9, 0xE0, 0xF0


def _code() -> bytes:
    word, long, quad = (struct.Struct(f"<{letter}").pack for letter in "HIQ")
    real = (
        b"\xfc"  # cld
        b"\x31\xc0\x8e\xd8\x8e\xc0"  # ds = es = 0
        + b"\xbf"
        + word(_PML4)  # di: three empty tables
        + b"\xb9"
        + word((_WORK - _PML4) // 2)  # cx
        + b"\xf3\xab"  # rep stosw
        + b"\xc7\x06"
        + word(_PML4)
        + word(_PDPT | 3)  # present, writable
        + b"\xc7\x06"
        + word(_PDPT)
        + word(_PD | 3)
        + b"\xc7\x06"
        + word(_PD)
        + word(0x83)  # the first 2 MiB, as one page
        + b"\x2e\x66\x0f\x01\x16"
        + word(_GDTR)  # lgdt cs:[gdtr]
        + b"\x66\xb8"
        + long(0x620)  # CR4: PAE, OSFXSR, OSXMMEXCPT
        + b"\x0f\x22\xe0"
        + b"\x66\xb8"
        + long(_PML4)
        + b"\x0f\x22\xd8"  # CR3
        + b"\x66\xb9"
        + long(0xC0000080)  # EFER
        + b"\x0f\x32\x80\xcc\x01\x0f\x30"  # rdmsr; or ah, 1 (LME); wrmsr
        + b"\x66\xb8"
        + long(0x80000003)  # CR0: PG, MP, PE
        + b"\x0f\x22\xc0"
        + b"\x66\xea"
        + long(_ROM + _LONG)
        + word(8)  # jmp 8:long
    )
    work = (
        b"\xbe"
        + long(_WORK)  # esi
        + b"\x0f\x28\x05"
        + long(_ONE - _LONG - 12)  # movaps xmm0, [rip + one]
        + b"\x0f\x57\xc9"  # xorps xmm1, xmm1
        b"\x45\x31\xc0"  # xor r8d, r8d
        b"\xc7\x46\x10\x03\x00\x00\x00"  # mov dword [rsi+16], 3
        b"\xbf"
        + long(ROUNDS)  # edi
        + b"\x44\x03\x46\x10"  # again: add r8d, [rsi+16]
        b"\xff\xcf\x75\xf8"  # dec edi; jnz again
        b"\xbf"
        + long(_PAIRS)  # edi
        + b"\x31\xc0\x31\xd2"  # eax = edx = 0
        b"\x48\x8d\x58\x01"  # pairs: lea rbx, [rax+1]
        b"\x48\x8d\x4a\x02"  # lea rcx, [rdx+2]
        b"\xf0\x48\x0f\xc7\x0e"  # lock cmpxchg16b [rsi]
        b"\x75\x3c"  # jnz wrong
        b"\x48\x89\xd8\x48\x89\xca"  # rdx:rax = rcx:rbx
        b"\x66\x0f\xd4\xc8"  # paddq xmm1, xmm0
        b"\xff\xcf\x75\xe3"  # dec edi; jnz pairs
        b"\x66\x48\x0f\x7e\xcb"  # movq rbx, xmm1
        b"\x41\x81\xf8"
        + long(3 * ROUNDS)
        + b"\x75\x20"  # cmp r8d, …; jne wrong
        + b"\x48\x81\x3e"
        + long(_PAIRS)
        + b"\x75\x17"  # cmp qword [rsi], …; jne wrong
        + b"\x48\x81\x7e\x08"
        + long(2 * _PAIRS)
        + b"\x75\x0d"  # cmp qword [rsi+8], …; jne wrong
        + b"\x48\x81\xfb"
        + long(3 * _PAIRS)
        + b"\x75\x04"  # cmp rbx, …; jne wrong
        + bytes([0xB0, _RIGHT, 0xEB, 0x02])  # mov al, right; jmp leave
        + bytes([0xB0, _WRONG])  # wrong: mov al, wrong
        + b"\xe6\xf4\xf4\xeb\xfd"  # leave: out 0xf4, al; hlt, for ever
    )
    code = (real + work).ljust(_GDTR, b"\xf4")
    code += word(15) + long(_ROM + _GDT)
    code = code.ljust(_ONE, b"\0") + quad(3) + quad(0)
    return code + quad(0) + quad(0x00209A0000000000)  # a null descriptor, 64-bit code


def _firmware() -> bytes:
    """Return 64 KiB that end with the jump to the code at the reset vector."""
    reset = b"\xea\x00\x00\x00\xf0"  # jmp f000:0000
    return _code().ljust(0xFFF0, b"\xf4") + reset.ljust(16, b"\xf4")
