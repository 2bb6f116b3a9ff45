"""Which drives are part of a template, and which are plugged into its clones."""

from __future__ import annotations

import pytest

from pytest_kvm.machine.late import split
from pytest_kvm.machine.planning import complete
from pytest_kvm.qemu.plan import IMAGE_DISK, SEED_DISK, plan_drives
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec

SHELL = Image("test", shell=True)
DISK = Drive("image.qcow2", id=IMAGE_DISK)
GIVEN = Drive("given.qcow2")
EMPTY = Drive(size="8M")


def late(*drives: Drive, image: Image | None = SHELL, **fields: object) -> list[str]:
    """Return the late drives, each with its port."""
    spec = complete(VMSpec(drives=list(drives), **fields), image)  # type: ignore[arg-type]  # a test's own words
    planned = plan_drives(spec)
    cold, later = split(planned, spec, image)
    assert sorted(each.id for each in (*cold, *later)) == sorted(each.id for each in planned)
    assert all(each.port == "" for each in cold)
    return [f"{each.id}@{each.port}" for each in later]


@pytest.mark.parametrize(
    ("drives", "expected"),
    [
        ([], []),
        ([EMPTY, EMPTY], []),
        ([GIVEN], ["disk0@rootport0"]),
        ([DISK, GIVEN], ["disk0@rootport0"]),
        ([EMPTY, GIVEN, EMPTY], ["disk1@rootport0", "disk2@rootport1"]),
        ([Drive("given", interface="scsi")], []),
        ([Drive("given", interface="ide"), GIVEN], ["disk1@rootport0"]),
        ([Drive("given", bootindex=1)], []),
        ([Drive("given", properties={"num-queues": 2})], []),
        ([GIVEN] * 4, [f"disk{n}@rootport{n}" for n in range(4)]),
        ([GIVEN] * 5, []),
        ([GIVEN, Drive("seed.iso", id=SEED_DISK, readonly=True)], []),  # which is the last disk
    ],
)
def test_split(drives: list[Drive], expected: list[str]) -> None:
    assert late(*drives) == expected


@pytest.mark.parametrize(
    "fields",
    [{"machine": "pc"}, {"machine": "microvm"}, {"extras": ["rng"]}],
    ids=str,
)
def test_machines_where_nothing_can_be_plugged(fields: dict[str, object]) -> None:
    assert late(GIVEN, **fields) == []  # type: ignore[arg-type]  # a test's own words


@pytest.mark.parametrize("image", [None, Image("no shell")], ids=str)
def test_guests_that_cannot_say_that_they_have_it(image: Image | None) -> None:
    assert late(GIVEN, image=image) == []
