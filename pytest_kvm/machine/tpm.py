"""A machine's TPM: swtpm, beside each QEMU."""

from __future__ import annotations

import contextlib
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.host.swtpm import swtpm_command
from pytest_kvm.machine.daemon import Daemon, report_lost
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.board import TPM_DEVICES, tpm_version
from pytest_kvm.qemu.plan import Plan, machine_kind
from pytest_kvm.spec.vm import VMSpec

if TYPE_CHECKING:
    from pytest_kvm.machine.machine import Machine

NAME = "swtpm"
# In the machine's folder: what the TPM keeps, over all starts.
STATE = "tpm"


def check_tpm(spec: VMSpec, binary: QEMUBinary) -> None:
    """Raise SpecError when a machine cannot have the TPM that it asks for, HostError when this host cannot."""
    version = tpm_version(spec)
    if version is None:
        return
    if machine_kind(spec.machine) not in ("q35", "pc"):
        raise SpecError(
            f"vm(machine={spec.machine!r}, tpm={spec.tpm!r}): there is a TPM for the machines q35 and pc only",
            keyword="tpm",
            value=spec.tpm,
        )
    if TPM_DEVICES[version] not in binary.devices:
        raise HostError(f"{binary.path} was built without {TPM_DEVICES[version]}: it has no TPM for machines")
    swtpm_command(version, Path(), 0)


def with_tpm(machine: Machine, plan: Plan, stack: contextlib.ExitStack) -> Plan:
    """Start the TPM of a machine that has one, and return the plan with QEMU's end of the connection to it.

    That end is ours until the stack is closed.
    """
    version = tpm_version(plan.spec)
    if plan.tpm is None or version is None:
        return plan
    state = machine._folder / STATE
    state.mkdir(mode=0o700, exist_ok=True)
    ours, its = socket.socketpair()
    stack.enter_context(ours)
    with its:
        daemon = Daemon(
            NAME,
            swtpm_command(version, state, its.fileno()),
            [its.fileno()],
            io=machine._io,
            watch=machine.watch,
            log=machine._folder / f"{NAME}.log",
            lost=lambda daemon: report_lost(machine, daemon, "the TPM"),
        )
    daemon.serving = True
    machine.daemons.append(daemon)
    return replace(plan, tpm=replace(plan.tpm, fd=ours.fileno()), inherited=[*plan.inherited, ours.fileno()])


def forget(folder: Path) -> None:
    """Remove what a machine's TPM has kept: QEMU gives it the state of the saved one."""
    shutil.rmtree(folder / STATE, ignore_errors=True)
