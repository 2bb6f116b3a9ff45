"""The part of the command line that is about what stands on a machine's board."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pytest_kvm.qemu.devices import driver_of
from pytest_kvm.qemu.plan import Plan, machine_kind
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.board import read_watchdog, smbios_tables
from pytest_kvm.spec.vm import VMSpec

TPM = "tpm0"
# The interfaces of TPMs on PCs, CRB and TIS (QEMU's docs/specs/tpm.rst); a TPM 1.2 has the older one only.
TPM_DEVICES = {"2.0": "tpm-crb", "1.2": "tpm-tis"}
WATCHDOG = "i6300esb"
ITCO = "iTCO"
_WATCHDOGS = (WATCHDOG, "ib700", "diag288")
VSOCK = "vhost-vsock-pci"


def tpm_version(spec: VMSpec) -> str | None:
    """Return the version of the TPM that a machine is to have, None for none."""
    return "2.0" if spec.tpm is True else spec.tpm or None


def board_arguments(plan: Plan) -> Iterator[str]:
    """Yield the options for TPM, watchdog, vsock, fw_cfg and SMBIOS."""
    spec = plan.spec
    yield from _tpm(plan)
    if spec.watchdog is not None:
        yield from _watchdog(spec, *read_watchdog(spec.watchdog))
    if plan.cid is not None:
        yield from ("-device", option(VSOCK, {"id": "vsock0", "guest-cid": plan.cid}))
    for name, content in (spec.fw_cfg or {}).items():
        if isinstance(content, str):
            yield from ("-fw_cfg", option(f"name={name}", {"string": content}))
        elif not isinstance(content, bytes):  # those are in a file, but for whoever starts the machine by hand
            yield from ("-fw_cfg", option(f"name={name}", {"file": os.fspath(content)}))
    for number, fields in smbios_tables(spec.smbios or {}):
        text = f"type={number}"
        for field, value in fields:
            text = option(text, {field: value})
        yield from ("-smbios", text)


def _watchdog(spec: VMSpec, model: str, action: str) -> Iterator[str]:
    yield from ("-action", f"watchdog={action}")
    if model == ITCO:
        # The pin that lets it only count is strapped by default (hw/isa/lpc_ich9.c).
        yield from ("-global", "ICH9-LPC.noreboot=off")
        return
    kind = machine_kind(spec.machine)
    if not any(driver_of(device, kind).startswith(_WATCHDOGS) for device in spec.devices):
        yield from ("-device", option(WATCHDOG, {"id": "watchdog0"}))


def _tpm(plan: Plan) -> Iterator[str]:
    version = tpm_version(plan.spec)
    if plan.tpm is None or version is None:
        return
    yield from ("-chardev", option("socket", {"id": plan.tpm.id, "fd": plan.tpm.fd}))
    yield from ("-tpmdev", option("emulator", {"id": TPM, "chardev": plan.tpm.id}))
    yield from ("-device", option(TPM_DEVICES[version], {"id": TPM, "tpmdev": TPM}))
