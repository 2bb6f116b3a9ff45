"""QEMU: which ones are here, which is used, and what comes with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.cli.checks.programs import program
from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.host import uefi
from pytest_kvm.qemu.binary import QEMUBinary, candidates, find_qemu

_GROUP = "QEMU"
# What QEMU gives a network card on PCI to boot from (its romfile=).
_NETWORK_ROM = "efi-virtio.rom"


def check(subject: Subject) -> Iterator[Row]:
    """Look for QEMU and its tools."""
    yield from _emulators(subject)
    yield program(_GROUP, "qemu-img", "makes the disks of machines", needed=True)
    if subject.binary is not None:
        yield _sandbox(subject.binary)
        yield _firmware(subject.binary)
        yield _rom(subject.binary)


def _emulators(subject: Subject) -> Iterator[Row]:
    used = subject.binary
    if used is not None:
        yield _emulator(used, "used")
    if subject.trouble is not None:
        yield _unusable(subject.trouble, named=subject.qemu is not None)
    known = {used.path.resolve()} if used is not None else set()
    for path in _others():
        if path.resolve() not in known:
            known.add(path.resolve())
            try:
                yield _emulator(find_qemu(str(path), memory=subject.cache / "host"), f"not used: --kvm-qemu={path}")
            except QEMUNotFound as error:
                if used is not None:  # else that is told already
                    yield Row(group=_GROUP, name="qemu", state=State.NOTE, text=f"not used: {error.trouble}")


def _emulator(binary: QEMUBinary, use: str) -> Row:
    data = {"path": str(binary.path), "version": binary.version_text, "used": use == "used"}
    text = f"{binary.version_text} ({binary.path}), {use}"
    return Row(group=_GROUP, name="qemu", state=State.OK, text=text, needed=data["used"] is True, data=data)


def _unusable(trouble: QEMUNotFound, *, named: bool) -> Row:
    missing = not named and not any(_others())
    return Row(
        group=_GROUP,
        name="qemu",
        state=State.MISSING if missing else State.BROKEN,
        text=trouble.trouble,
        fix=trouble.hint,
        needed=True,
        package="" if missing else None,
    )


def _others() -> Iterator[Path]:
    """Yield every emulator that has one of the usual names."""
    for name in candidates():
        for folder in [None] if os.path.isabs(name) else os.get_exec_path():
            found = shutil.which(name, path=folder)
            if found is not None:
                yield Path(found).absolute()


def _sandbox(binary: QEMUBinary) -> Row:
    return Row(
        group=_GROUP,
        name="sandbox",
        state=State.OK if binary.sandbox else State.MISSING,
        text="on" if binary.sandbox else "this QEMU was built without seccomp",
        purpose="a guest that breaks out of QEMU can start nothing",
        fix="" if binary.sandbox else "name a QEMU that has it with --kvm-qemu=PATH",
    )


def _firmware(binary: QEMUBinary) -> Row:
    found = [each for each in uefi.installed(uefi.directories(binary.data)) if "uefi" in each.types]
    ours = [each for each in found if binary.path.name.rpartition("-")[2] in each.architectures] or found
    return Row(
        group=_GROUP,
        name="uefi",
        state=State.OK if ours else State.MISSING,
        text=f"{ours[0].executable} ({len(ours)} in all)" if ours else "not there",
        purpose="machines that boot with UEFI",
        package="",
        data={"executables": [str(each.executable) for each in ours]},
    )


def _rom(binary: QEMUBinary) -> Row:
    found = next((folder / _NETWORK_ROM for folder in binary.data if (folder / _NETWORK_ROM).exists()), None)
    return Row(
        group=_GROUP,
        name="ipxe",
        state=State.OK if found else State.MISSING,
        text=os.path.normpath(found) if found else "QEMU has no network ROMs",
        purpose="machines that boot from the network (PXE)",
        package="",
    )
