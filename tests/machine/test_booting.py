"""What a machine boots from: floppy, disk, CD-ROM or network, in which order, with SeaBIOS and with UEFI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, Nic, VMFactory
from pytest_kvm.waiting import Deadline
from tests.guests import media
from tests.guests.tools import MissingTool

BOOTED = re.compile(r"Loading the-([a-z]+)(?=[^a-z])")


@pytest.fixture(scope="session")
def bootable(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Media that say what they are."""
    folder = tmp_path_factory.mktemp("media")
    try:
        return {
            "disk": media.disk(folder / "disk", "disk"),
            "floppy": media.disk(folder / "floppy", "floppy", size=media.FLOPPY),
            "cdrom": media.iso(folder / "cdrom", "cdrom"),
            "esp": media.efi_disk(folder / "esp", "esp"),
        }
    except MissingTool as error:
        pytest.fail(f"{error} (tox installs it)")


@pytest.fixture
def disk(bootable: dict[str, Path]) -> Path:
    return bootable["disk"]


@pytest.fixture
def cdrom(bootable: dict[str, Path]) -> Path:
    return bootable["cdrom"]


@pytest.fixture
def floppy(bootable: dict[str, Path]) -> Path:
    return bootable["floppy"]


@pytest.fixture
def esp(bootable: dict[str, Path]) -> Path:
    return bootable["esp"]


def all_of_them(bootable: dict[str, Path], **disk: int) -> list[Drive]:
    return [
        Drive(bootable["disk"], format="raw", **disk),  # type: ignore[arg-type]  # a bootindex
        Drive(bootable["floppy"], format="raw", interface="floppy"),
        Drive(bootable["cdrom"], format="raw", media="cdrom"),
    ]


def booted(vm: VM) -> str:
    """Return from what the machine has booted, since it was looked at last."""
    vm.console.expect(BOOTED, timeout=60)
    return str(vm.console.match[1])  # type: ignore[index]  # there is one now


def press(vm: VM, key: str) -> None:
    vm.qmp.execute("send-key", {"keys": [{"type": "qcode", "data": key}]})


@pytest.mark.parametrize(
    ("machine", "order", "first"),
    [("q35", "dc", "cdrom"), ("q35", "a", "floppy"), ("pc", "c", "disk"), ("pc", "ad", "floppy")],
)
def test_order(vm_factory: VMFactory, bootable: dict[str, Path], machine: str, order: str, first: str) -> None:
    vm = vm_factory(
        image=None, machine=machine, boot=f"order={order}", drives=all_of_them(bootable), ready=BOOTED, timeout=60
    )
    assert booted(vm) == first


@pytest.mark.vm(
    image=None,
    boot="order=c,once=d",
    drives=[Drive(FromFixture("disk"), format="raw")],
    cdrom=FromFixture("cdrom"),
    ready=BOOTED,
    timeout=60,
)
def test_once(vm: VM) -> None:
    assert booted(vm) == "cdrom"
    vm.reset()
    assert booted(vm) == "disk"


def test_bootindex_wins_over_order(vm_factory: VMFactory, bootable: dict[str, Path]) -> None:
    vm = vm_factory(image=None, boot="order=a", drives=all_of_them(bootable, bootindex=0), ready=BOOTED, timeout=60)
    assert booted(vm) == "disk"


@pytest.mark.vm(image=None, boot="order=n,strict=on", nics=[Nic()])
def test_network(vm: VM) -> None:
    # iPXE itself says nothing on the serial port.
    firmware = vm._firmware
    assert firmware is not None
    assert vm.watch.wait_for(lambda: "Booting from ROM" in firmware.shown(), Deadline(60)), firmware.shown()


@pytest.mark.vm(
    image=None,
    boot="menu=on,splash-time=60000",
    drives=[Drive(FromFixture("disk"), format="raw")],
    cdrom=FromFixture("cdrom"),
)
def test_menu(vm: VM) -> None:
    firmware = vm._firmware
    assert firmware is not None

    def shown(pattern: str) -> str:
        def found() -> list[str]:
            return re.findall(pattern, firmware.shown())

        assert vm.watch.wait_for(lambda: bool(found()), Deadline(60)), firmware.shown()
        return found()[0]

    shown("Press ESC for boot menu")
    press(vm, "esc")
    press(vm, shown(r"\n(\d)\. DVD/CD"))
    assert booted(vm) == "cdrom"


@pytest.mark.vm(
    image=None,
    firmware="uefi",
    drives=[
        Drive(FromFixture("cdrom"), format="raw", media="cdrom", bootindex=0),
        Drive(FromFixture("esp"), format="raw", bootindex=1),
    ],
    ready=BOOTED,
    timeout=60,
)
def test_uefi_boots_a_cdrom_then_a_disk(vm: VM) -> None:
    # The program on the CD-ROM fails, whereupon the firmware goes on to the disk.
    assert booted(vm) == "cdrom"
    assert booted(vm) == "esp"
