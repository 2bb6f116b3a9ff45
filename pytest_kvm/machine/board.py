"""What stands on a machine's board: can it be there, what is there, and what the guest is told through it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.host.device import node_trouble
from pytest_kvm.machine.tpm import check_tpm
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.board import ITCO, VSOCK, WATCHDOG
from pytest_kvm.qemu.plan import Plan, machine_kind
from pytest_kvm.spec.board import read_watchdog
from pytest_kvm.spec.vm import VMSpec

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_VSOCK_NODE = "/dev/vhost-vsock"
# Below are the hypervisor's and the host's, the last one is any (vsock(7)).
_CIDS = range(1000, 0xFFFFFFFF)
# Fields that a machine without PCI or the tables of a PC's firmware cannot have, with what lacks.
_PC_ONLY = {"watchdog": "a PCI bus for it", "vsock": "a PCI bus for it", "smbios": "SMBIOS tables"}


def check_board(spec: VMSpec, binary: QEMUBinary) -> None:
    """Check that a machine can have what it asks for; raises SpecError, and HostError when this host cannot."""
    for keyword, lacks in _PC_ONLY.items():
        value = getattr(spec, keyword)
        if value and machine_kind(spec.machine) in ("microvm", "none"):
            raise SpecError(
                f"vm(machine={spec.machine!r}, {keyword}={value!r}): this machine does not have {lacks}; use q35 or pc",
                keyword=keyword,
                value=value,
            )
    check_tpm(spec, binary)
    if spec.watchdog is not None:
        _check_watchdog(spec, read_watchdog(spec.watchdog)[0], binary)
    if spec.vsock:
        _check_vsock(binary)


def _check_watchdog(spec: VMSpec, model: str, binary: QEMUBinary) -> None:
    if model == ITCO and machine_kind(spec.machine) != "q35":
        raise SpecError(
            f"vm(machine={spec.machine!r}, watchdog={spec.watchdog!r}): a q35's chip set has iTCO; use {WATCHDOG}",
            keyword="watchdog",
            value=spec.watchdog,
        )
    if model == WATCHDOG and WATCHDOG not in binary.devices:
        raise HostError(f"{binary.path} was built without {WATCHDOG}, the watchdog")


def _check_vsock(binary: QEMUBinary) -> None:
    if VSOCK not in binary.devices:
        raise HostError(f"{binary.path} was built without {VSOCK}")
    trouble = node_trouble(_VSOCK_NODE, "vhost_vsock")
    if trouble is not None:
        raise HostError(f"vm(vsock=True): {trouble.reason}", hint=trouble.fix)


def new_cid() -> int:
    """Return a random address on vsock, which all machines of a host share: unique enough."""
    return secrets.choice(_CIDS)


def with_contents(plan: Plan, folder: Path) -> Plan:
    """Return the plan with bytes for fw_cfg in files of the machine's ``folder``, as QEMU takes them."""
    given = plan.spec.fw_cfg or {}
    if not any(isinstance(content, bytes) for content in given.values()):
        return plan
    files = dict(given)
    for number, (name, content) in enumerate(given.items()):
        if isinstance(content, bytes):
            files[name] = folder / f"fw_cfg.{number}"
            (folder / f"fw_cfg.{number}").write_bytes(content)
    return replace(plan, spec=plan.spec.replace(fw_cfg=files))


def having_read(spec: VMSpec, read: Callable[[Path], str | bytes]) -> VMSpec:
    """Return the spec with what ``read`` says of a file in place of each file for fw_cfg."""
    if spec.fw_cfg is None:
        return spec
    contents = {
        name: content if isinstance(content, (str, bytes)) else read(Path(content))
        for name, content in spec.fw_cfg.items()
    }
    return spec.replace(fw_cfg=contents)


class OnBoard:
    """What a machine says about itself."""

    @property
    def generation_id(self) -> str:
        """The guest's VM generation ID, a UUID: another one in each clone and after each ``restore``.

        Raises QMPError when the machine has no ``vmgenid``, QEMUExited when it is off. QEMU, docs/specs/vmgenid.rst.
        """
        return str(cast("VM", self).qmp.execute("query-vm-generation-id")["guid"])

    @property
    def cid(self) -> int:
        """The guest's address on vsock; raises SpecError when it has none."""
        vm = cast("VM", self)
        if vm._plan.cid is None:
            raise SpecError(f"VM {vm.name!r} has no vsock; declare it with vsock=True", keyword="vsock")
        return vm._plan.cid
