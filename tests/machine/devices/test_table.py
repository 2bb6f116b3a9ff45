"""The table of virtio devices in the documentation: each is plugged in, negotiated with, decoded, and unplugged.

With ``PYTEST_KVM_WRITE_TABLE=1`` the table is written; without, compared, where QEMU and kernel are those of the table.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm import (
    VM,
    Drive,
    Nic,
    QMPError,
    Share,
    VirtioBalloon,
    VirtioCrypto,
    VirtioGPU,
    VirtioIOMMU,
    VirtioKeyboard,
    VirtioMem,
    VirtioMouse,
    VirtioPmem,
    VirtioRng,
    VirtioSCSI,
    VirtioSerial,
    VirtioTablet,
    VMFactory,
)
from pytest_kvm.spec.devices import BaseDevice
from pytest_kvm.virtio.features import COMMON

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "virtio.md"
NONE = "-"
BEGIN, END = "<!-- from tests/machine/devices/test_table.py -->", "<!-- the end -->"
HEAD = [
    "| type | QEMU's device | Linux's driver | queues | own features | configuration space | plugged | unplugged |",
    "|---|---|---|---|---|---|---|---|",
]
PLUGGABLE: list[Drive | Nic | BaseDevice] = [
    *(Nic(), Drive(size="8M"), VirtioSerial(), VirtioRng(), VirtioBalloon(), VirtioSCSI()),
    *(VirtioKeyboard(), VirtioMouse(), VirtioTablet(), VirtioCrypto()),
    *(VirtioPmem(size="32M"), VirtioMem(size="128M")),
]
RUNNING = {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"}


def row(vm: VM, name: str, plugged: str, unplugged: str) -> tuple[str, str]:
    seen = vm.virtio(name)
    assert seen.status == RUNNING
    assert seen.negotiated <= seen.offered
    own = sorted(each.removeprefix("VIRTIO_") for each in seen.negotiated - set(COMMON.values()))
    cells = [
        seen.type,
        f"`{vm.device(name).driver}`",
        f"`{seen.driver}`",
        str(len([queue for queue in seen.queues if queue.enabled])),
        ", ".join(own) or NONE,
        ", ".join(f"`{field}`" for field in seen.config) or NONE,
        plugged,
        unplugged,
    ]
    return seen.type, f"| {' | '.join(cells)} |"


def unplugged(vm: VM, name: str) -> str:
    try:
        vm.unplug(name)
    except QMPError:
        return "no"
    assert name not in str(vm.qmp.execute("qom-list", {"path": "/machine/peripheral"}))
    return "yes"


# What the kernel complains of there is in the page.
@pytest.mark.vm_allow_splat("alg_test|enable_work|crypto_unregister_alg")
def test_table(vm_factory: VMFactory, tmp_path: Path) -> None:
    vm = vm_factory(extras=["rootports"], memory="256M,slots=2,maxmem=1G", start="boot", nics=[])
    rows = []
    for device in PLUGGABLE:
        found = vm.plug(device)
        made = row(vm, found.id, "yes", "{}")
        rows.append((made[0], made[1].replace("{}", unplugged(vm, found.id))))
    cold = vm_factory(
        devices=[VirtioGPU(), VirtioIOMMU(), "virtio-9p-pci,id=ninep,fsdev=folder,mount_tag=folder"],
        args=["-fsdev", f"local,id=folder,path={tmp_path},security_model=none,readonly=on"],
        start="boot",
    )
    for device in (VirtioGPU(id="gpu1"), VirtioIOMMU(id="iommu1")):
        with pytest.raises(QMPError, match="expects a pluggable device type"):
            cold.plug(device)
    rows += [row(cold, name, "no", NONE) for name in ("gpu0", "iommu0")]
    rows.append(row(cold, "ninep", "by `Share`", NONE))
    shared = vm_factory(shares=[Share(tmp_path, "/mnt", method="virtiofs")], start="boot")
    rows.append(row(shared, "share0", "by `Share`", NONE))
    lines = [*HEAD, *(line for _, line in sorted(rows))]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    if os.environ.get("PYTEST_KVM_WRITE_TABLE"):
        PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")
    elif vm._binary.version[:2] == (7, 2) and vm.kernel.numbers[:2] == (6, 12):
        assert table.split("\n")[2:-2] == lines
