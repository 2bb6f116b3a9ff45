"""Media that boot, say what they are on the serial port, and do nothing more: "Loading the-disk"."""

from __future__ import annotations

import struct
from pathlib import Path

import pycdlib

from tests.guests.tools import MIB, run

# Debian's packages isolinux and syslinux-common.
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
LDLINUX = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")
_SECTOR = 512
FLOPPY = 1440  # KiB


# What they SAY does not come on the serial port, but that they load what is not there.
_SETTINGS = "SERIAL 0\nDEFAULT the-{}\n"


def disk(path: Path, what: str, *, size: int = 2048) -> Path:
    """Make a disk of so many KiB that syslinux boots from, a floppy disk for example; raises MissingTool."""
    run("dosfstools", "mkfs.fat", "-C", "-F", "12", path, str(size))
    _into(path, "syslinux.cfg", _SETTINGS.format(what).encode())
    run("syslinux", "syslinux", "--install", path)
    return path


def efi_program(what: str, *, returns: bool) -> bytes:
    """Return a UEFI application that prints a text, and fails then or halts.

    The format is Microsoft's PE32+; what it calls is in the UEFI specification, 4.3 (EFI_SYSTEM_TABLE) and 12.4
    (EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL).
    """
    failed = b"\x48\xb8" + (1 << 63 | 14).to_bytes(8, "little")  # mov rax, EFI_NOT_FOUND: the next one is tried
    ends = failed + b"\x48\x83\xc4\x28\xc3" if returns else b"\xf4\xeb\xfd"  # add rsp, 40; ret; or: hlt; jmp
    code = b"\x48\x83\xec\x28\x48\x8b\x4a\x40"  # sub rsp, 40; mov rcx, [rdx + 64]: ConOut
    code += b"\x48\x8d\x15" + (3 + len(ends)).to_bytes(4, "little")  # lea rdx, [the text behind the code]
    code += b"\xff\x51\x08" + ends  # call [rcx + 8]: OutputString
    code += f"Loading the-{what}\r\n\0".encode("utf-16-le")
    size = -(-len(code) // _SECTOR) * _SECTOR
    dos = b"MZ" + bytes(58) + (64).to_bytes(4, "little")
    head = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 112, 0x22E)
    # The code is one section, at 4096 in memory; subsystem 10 is an EFI application.
    optional = struct.pack("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", 0x20B, 0, 0, size, 0, 0, 4096, 4096, 0, 4096, _SECTOR,
                           0, 0, 0, 0, 0, 0, 0, 8192, _SECTOR, 0, 10, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip
    section = struct.pack("<8sIIIIIIHHI", b".text", len(code), 4096, size, _SECTOR, 0, 0, 0, 0, 0x60000020)
    return (dos + head + optional + section).ljust(_SECTOR, b"\0") + code.ljust(size, b"\0")


def esp(path: Path, program: bytes) -> Path:
    """Make an EFI system partition's file system with a program that is started from there; raises MissingTool."""
    run("dosfstools", "mkfs.fat", "-C", "-F", "12", path, "1024")
    run("mtools", "mmd", "-i", path, "::EFI", "::EFI/BOOT")
    _into(path, "EFI/BOOT/BOOTX64.EFI", program)
    return path


def _into(volume: Path, name: str, content: bytes) -> None:
    part = volume.with_suffix(".part")
    part.write_bytes(content)
    run("mtools", "mcopy", "-i", volume, part, f"::{name}")
    part.unlink()


def efi_disk(path: Path, what: str) -> Path:
    """Make a disk whose only partition is an EFI system partition; raises MissingTool."""
    volume = esp(path.with_suffix(".esp"), efi_program(what, returns=False)).read_bytes()
    path.with_suffix(".esp").unlink()
    entry = struct.pack("<8BII", 0, 0, 2, 0, 0xEF, 0, 0, 0, MIB // _SECTOR, len(volume) // _SECTOR)
    path.write_bytes((bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - _SECTOR) + volume)
    return path


def iso(path: Path, what: str) -> Path:
    """Make a CD-ROM that boots with SeaBIOS, through isolinux, and with UEFI, where it fails then.

    Raises MissingTool.
    """
    files = {"/ISOLINUX.BIN": ISOLINUX.read_bytes(), "/LDLINUX.C32": LDLINUX.read_bytes()}
    files["/ISOLINUX.CFG"] = _SETTINGS.format(what).encode()
    files["/EFI.IMG"] = esp(path.with_suffix(".esp"), efi_program(what, returns=True)).read_bytes()
    path.with_suffix(".esp").unlink()
    made = pycdlib.PyCdlib()
    made.new(interchange_level=3)
    for name, content in files.items():
        part = path.with_name(name.removeprefix("/"))
        part.write_bytes(content)
        made.add_file(str(part), f"{name};1")
    made.add_eltorito("/ISOLINUX.BIN;1", bootcatfile="/BOOT.CAT;1", boot_load_size=4, boot_info_table=True)
    made.add_eltorito("/EFI.IMG;1", efi=True)
    made.write(str(path))
    made.close()
    for name in files:
        path.with_name(name.removeprefix("/")).unlink()
    return path
