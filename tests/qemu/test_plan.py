"""Ids and places of drives and NICs."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.qemu.plan import machine_kind, plan_drives, plan_nics
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.vm import VMSpec

MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"]


@pytest.mark.parametrize(
    ("machine", "kind"),
    [
        (None, "q35"),
        ("q35", "q35"),
        ("pc-q35-7.2", "q35"),
        ("q35,kernel-irqchip=split", "q35"),
        ("type=q35,usb=on", "q35"),
        ("pc", "pc"),
        ("pc,hpet=off", "pc"),
        ("pc-i440fx-7.2", "pc"),
        ("microvm", "microvm"),
        ("microvm,pit=off", "microvm"),
        ("none", "none"),
        ("isapc", "other"),
        ("pcq35", "other"),
    ],
)
def test_machine_kind(machine: str | None, kind: str) -> None:
    assert machine_kind(machine) == kind


def places(*drives: Drive, machine: str | None = None, cdrom: str | None = None) -> list[tuple[str, str, int]]:
    planned = plan_drives(VMSpec(image=None, machine=machine, drives=drives, cdrom=cdrom))
    return [(each.id, each.drive.interface, each.unit) for each in planned]


def test_ids_count_disks_and_cdroms_apart() -> None:
    drives = [Drive(size="1M"), Drive("a.iso", media="cdrom"), Drive(size="1M"), Drive("b.iso", media="cdrom")]
    assert places(*drives) == [
        ("disk0", "virtio", 0),
        ("cdrom0", "ide", 0),
        ("disk1", "virtio", 1),
        ("cdrom1", "ide", 1),
    ]


def test_the_cdrom_field_is_the_first_cdrom() -> None:
    assert places(Drive("b.iso", media="cdrom"), cdrom="a.iso") == [("cdrom0", "ide", 0), ("cdrom1", "ide", 1)]


def test_an_id_of_its_own_still_counts() -> None:
    assert [place[0] for place in places(Drive(size="1M", id="mine"), Drive(size="1M"))] == ["mine", "disk1"]


def test_the_others_take_the_places_that_an_index_leaves() -> None:
    drives = [
        Drive(size="1M", interface="scsi"),
        Drive(size="1M", interface="scsi", index=0),
        Drive(size="1M", interface="scsi"),
        Drive(size="1M", interface="scsi", index=2),
        Drive(size="1M", interface="nvme"),
    ]
    assert [place[2] for place in places(*drives)] == [1, 0, 3, 2, 0]


@pytest.mark.parametrize(("machine", "count"), [("q35", 6), (None, 6), ("pc", 4)])
def test_ide_has_its_limit(machine: str | None, count: int) -> None:
    drives = [Drive(size="1M", interface="ide") for _ in range(count + 1)]
    assert [place[2] for place in places(*drives[:count], machine=machine)] == list(range(count))
    with pytest.raises(SpecError) as caught:
        places(*drives, machine=machine)
    assert str(caught.value) == (
        f"vm(drives=…): drive 'disk{count}' is number {count} on ide, which has places 0 to {count - 1} on machine "
        f"'{machine or 'q35'}'; use virtio or scsi"
    )
    assert caught.value.keyword == "drives"


def test_an_unknown_machine_judges_for_itself() -> None:
    drives = [Drive(size="1M", interface="ide") for _ in range(9)]
    assert len(places(*drives, machine="isapc")) == 9


@pytest.mark.parametrize("interface", ["ide", "floppy"])
def test_a_microvm_has_neither_ide_nor_floppy(interface: str) -> None:
    with pytest.raises(SpecError, match=f"drive 'disk0' is on {interface}, which a microvm does not have; use virtio"):
        places(Drive(size="1M", interface=interface), machine="microvm")


def test_a_drive_id_that_is_used_twice() -> None:
    with pytest.raises(SpecError) as caught:
        places(Drive(size="1M"), Drive(size="1M", id="disk0"))
    assert str(caught.value) == "vm(drives=…): the id 'disk0' is used twice; give one of them another id="


def test_nics_by_default() -> None:
    assert [each.id for each in plan_nics(VMSpec(), [], MACS)] == ["net0"]
    assert plan_nics(VMSpec(image=None), [], MACS) == []
    assert plan_nics(VMSpec(nics=[]), [], MACS) == []


def test_nics_get_ids_addresses_and_the_first_one_the_forwards() -> None:
    forwards = [parse_hostfwd(22)]
    spec = VMSpec(nics=[Nic(), Nic(id="second", mac="52-54-00-AA-BB-CC"), Nic()])
    assert [(each.id, each.mac, list(each.forwards)) for each in plan_nics(spec, forwards, MACS)] == [
        ("net0", MACS[0], forwards),
        ("second", "52:54:00:AA:BB:CC", []),
        ("net2", MACS[2], []),
    ]


def test_a_nic_id_that_is_used_twice() -> None:
    with pytest.raises(SpecError, match=r"^vm\(nics=…\): the id 'net1' is used twice"):
        plan_nics(VMSpec(nics=[Nic(id="net1"), Nic()]), [], MACS)
