"""Why a machine is booted instead of cloned, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_kvm.machine.eligibility import why_not, why_rather_not
from pytest_kvm.machine.planning import complete, make_plan
from pytest_kvm.qemu.plan import plan_drives
from pytest_kvm.spec.devices import VirtioBalloon
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary

SHELL = Image("tiny", shell=True)
NO_ROOT = (
    "image 'disk' has no way in as root that is known (ssh_user= and sudo=, agent=), nor resume commands: "
    "a clone's clock and random numbers could not be set right"
)


def reason(*, version: tuple[int, ...] = (7, 2, 0), **fields: object) -> str | None:
    spec = complete(VMSpec(**fields), SHELL)  # type: ignore[arg-type]  # a test's own words
    qemu = replace(binary(), version=version, version_text=".".join(map(str, version)))
    plan = make_plan(spec, SHELL, "tcg")
    return why_not(spec, plan, plan_drives(spec), binary=qemu)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"machine": "pc"},
        {"machine": "pc-q35-7.2"},
        {"machine": "microvm"},
        {"drives": [Drive("given"), Drive(size="8M"), Drive("locked", readonly=True)]},
        {"devices": ["virtio-rng-pci"]},
        {"numa": [NumaNode(memory="128M", cpus=0)]},
    ],
    ids=str,
)
def test_nothing_is_known_against_it(fields: dict[str, object]) -> None:
    assert reason(**fields) is None  # type: ignore[arg-type]  # a test's own words


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"version": (7, 1, 9)}, "QEMU 7.1.9 is older than 7.2"),
        (
            {"args": ["-no-hpet"]},
            "args=['-no-hpet'] is passed to QEMU unread: nobody knows whether a clone could have it",
        ),
        ({"vsock": True}, "vsock=True: the state of vsock is in the host's kernel and cannot be saved"),
        ({"machine": "none"}, "machine='none' is not one whose memory can be kept in a file"),
        ({"machine": "virt"}, "machine='virt' is not one whose memory can be kept in a file"),
        (
            {"machine": "q35,memory-backend=mine"},
            "machine='q35,memory-backend=mine' is not one whose memory can be kept in a file",
        ),
        ({"drives": [Drive("mine.raw", snapshot=False)]}, "drive 'disk0' writes to mine.raw, which no template may do"),
        (
            {"devices": ["vfio-pci,host=0000:01:00.0"]},
            "devices: the state of 'vfio-pci' is outside QEMU and cannot be saved",
        ),
        (
            {"devices": ["vhost-user-fs-pci,chardev=c"]},
            "devices: the state of 'vhost-user-fs-pci' is outside QEMU and cannot be saved",
        ),
        (
            {"devices": ["virtio-9p-pci,fsdev=f"]},
            "devices: the state of 'virtio-9p-pci' is outside QEMU and cannot be saved",
        ),
    ],
    ids=str,
)
def test_reasons(fields: dict[str, object], expected: str) -> None:
    assert reason(**fields) == expected  # type: ignore[arg-type]  # a test's own words


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (SHELL, None),
        (Image("disk", ssh_user="me", resume=("date -s @{now}",)), None),
        (Image("disk", ssh_user="root"), None),
        (Image("disk", ssh_user="me", sudo=True), None),
        (Image("disk", agent=True), None),
        (None, "image=None: whatever is tested there, its boot is likely to be part of it"),
        (Image("disk"), NO_ROOT),
        (Image("disk", ssh_user="me"), NO_ROOT),
    ],
    ids=str,
)
def test_reasons_unless_a_clone_is_asked_for(image: Image | None, expected: str | None) -> None:
    assert why_rather_not(VMSpec(), image) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"devices": [VirtioBalloon(properties={"free-page-reporting": True})]},
        {"properties": {"balloon0": {"free-page-reporting": "on"}}},
    ],
    ids=str,
)
def test_a_clone_gives_no_memory_back(fields: dict[str, object]) -> None:
    spec = VMSpec(**fields)  # type: ignore[arg-type]  # a test's own words
    assert why_rather_not(spec, SHELL) == (
        "free-page-reporting: a clone maps a file that others map, too, and gives nothing of it back to the host"
    )
    assert why_rather_not(VMSpec(devices=[VirtioBalloon(properties={"free-page-reporting": False})]), SHELL) is None
