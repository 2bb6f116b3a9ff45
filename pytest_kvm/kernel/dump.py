"""A guest's memory in a file, for crash and drgn."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from pytest_kvm.errors import MachineError, QMPError, SpecError
from pytest_kvm.qemu.qmp import QMP

# QEMU's (qapi/dump.json).
FORMATS = ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy")


class Dumped(Protocol):
    """Whose memory is dumped: a machine."""

    name: str

    @property
    def qmp(self) -> QMP:
        """The QMP session."""


def dump(vm: Dumped, path: Path, *, format_: str, timeout: float | None) -> Path:
    """Do what ``VM.dump`` says."""
    if format_ not in FORMATS:
        raise SpecError(f"vm.dump(format={format_!r}): expected {', '.join(FORMATS)}", value=format_)
    path = path.absolute()
    # Under another name until it is complete; one in which there is nothing that QEMU could take for something else.
    aside = path.parent / f".pytest-kvm-{secrets.token_hex(4)}.dump"
    try:
        with vm.qmp.expect_event("DUMP_COMPLETED", timeout=timeout) as expected:
            vm.qmp.execute(
                "dump-guest-memory",
                {"paging": False, "protocol": f"file:{aside}", "detach": True, "format": format_},
            )
        assert expected.event is not None
        result = expected.event["data"]
        if "error" in result:
            raise MachineError(f"VM {vm.name!r}: its memory is not dumped to {path}: {result['error']}")
        os.replace(aside, path)
    except QMPError as error:
        raise MachineError(f"VM {vm.name!r}: its memory is not dumped to {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path
