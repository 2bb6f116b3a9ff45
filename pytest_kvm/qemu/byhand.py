"""A machine as a person can start it in a terminal, long after the test: what was only there for the test is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pytest_kvm.qemu.plan import SEED_DISK, Channel, DriveFile, Plan, PlannedFirmware, Ram


def by_hand(plan: Plan, originals: Mapping[str, DriveFile]) -> Plan:
    """Return the plan of the same machine, with monitor and console in the terminal.

    It boots, also where the test's was a clone, and has memory of its own; nothing is behind the ports of shell and
    agent. ``originals`` are the files behind its drives, by their ids, none of which is written; a drive that is not
    among them is left out.
    """
    return replace(
        plan,
        qmp=_alone(plan.qmp),
        console=_alone(plan.console) if plan.console is not None else None,
        seabios=None,
        firmware=_unwritten(plan.firmware) if plan.firmware is not None else None,
        monitor=None,
        gdb=None,
        halted=False,
        ports=[(name, _alone(channel)) for name, channel in plan.ports],
        agent=_alone(plan.agent) if plan.agent is not None else None,
        tpm=None,
        drives=[
            (planned, replace(originals[planned.id], temporary=True))
            for planned, _ in plan.drives
            if planned.id in originals
        ],
        ram=Ram() if plan.ram is not None else None,
        incoming=False,
        inherited=(),
    )


def differences(plan: Plan, originals: Mapping[str, DriveFile]) -> Iterator[str]:
    """Say, in a sentence each, in what the machine of ``by_hand`` differs from the test's."""
    if plan.console is not None:
        yield "Console and QEMU's monitor are in the terminal (Ctrl-A C switches, Ctrl-A X ends it); there is no QMP."
    else:
        yield "QEMU's monitor is in the terminal; there is no QMP."
    if plan.incoming or (plan.ram is not None and plan.ram.descriptors):
        yield "It boots, with memory of its own; the test's machine went on where another one had been saved."
    if plan.gdb is not None:
        yield "Nobody listens for gdb: with -s, QEMU does, on port 1234."
    if plan.ports or plan.agent is not None:
        yield "Nobody answers at the other end of the virtio-serial ports."
    if any(planned.id in originals for planned, _ in plan.drives):
        yield "Disks begin as they did in the test, or empty; what is written to them is thrown away."
    yield from _on_board(plan)
    for planned, file in plan.drives:
        if planned.id == SEED_DISK:
            yield f"Drive {planned.id!r} is left out: the seed has secrets in it, and was removed with the session."
        elif planned.id not in originals:
            yield f"Drive {planned.id!r} is left out: its file, {planned.drive.file or file.path}, cannot be read."


def _on_board(plan: Plan) -> Iterator[str]:
    for name, content in (plan.spec.fw_cfg or {}).items():
        if isinstance(content, bytes):
            yield f"{name} of fw_cfg, which is bytes, is left out."
    if plan.tpm is not None:
        yield "The TPM is left out: the test's was a swtpm that ended with the machine."
    if plan.firmware is not None and plan.firmware.template is not None:
        yield "UEFI variables begin as the firmware's packages have them; what is written to them is thrown away."


def _unwritten(firmware: PlannedFirmware) -> PlannedFirmware:
    return replace(firmware, variables=firmware.template, temporary=True)


def _alone(channel: Channel) -> Channel:
    return replace(channel, fd=None)
