"""The part of the command line that is about firmware."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pytest_kvm.qemu.blocks import blockdev_text
from pytest_kvm.qemu.plan import PlannedFirmware
from pytest_kvm.qemu.text import option

# The flash devices of q35 and pc, as properties of the machine; their block nodes have the same names.
CODE, VARIABLES = "pflash0", "pflash1"


def machine_properties(firmware: PlannedFirmware) -> Iterator[str]:
    """Yield what the firmware needs of ``-machine``."""
    if firmware.smm:
        yield "smm=on"
    if firmware.flash:
        yield f"{CODE}={CODE}"
        if firmware.variables is not None and not firmware.temporary:
            yield f"{VARIABLES}={VARIABLES}"


def firmware_arguments(firmware: PlannedFirmware) -> Iterator[str]:
    """Yield the options for firmware in place of QEMU's own."""
    if not firmware.flash:
        yield from ("-bios", os.fspath(firmware.code))
        return
    if firmware.secure:
        # Only code in SMM may write variables then (OVMF's README, "SMM support").
        yield from ("-global", "driver=cfi.pflash01,property=secure,value=on")
    yield from ("-blockdev", blockdev_text(_node(CODE, os.fspath(firmware.code), firmware.code_format, read_only=True)))
    if firmware.variables is None:
        return
    path = os.fspath(firmware.variables)
    if firmware.temporary:  # only -drive has snapshot=on
        settings = {"unit": 1, "format": firmware.variables_format, "file.filename": path, "snapshot": True}
        yield from ("-drive", option("if=pflash", {"file.driver": "file", **settings}))
    else:
        yield from ("-blockdev", blockdev_text(_node(VARIABLES, path, firmware.variables_format, read_only=False)))


def _node(name: str, path: str, format_: str, *, read_only: bool) -> dict[str, object]:
    file = {"driver": "file", "filename": path}
    return {"node-name": name, "driver": format_, "read-only": read_only, "file": file}
