"""Media that are taken out and put in while the guest runs, on all kinds of drives that have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, SpecError, TrayLocked
from pytest_kvm.machine.devices.attached import AttachedDisk

MIB = 1 << 20
CDROMS = ("ide", "scsi", "usb")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number, name in enumerate("abc", 1):
        (tmp_path / f"{name}.iso").write_bytes(name.encode() * number * MIB)
    return tmp_path


@pytest.fixture
def first(media: Path) -> Path:
    return media / "a.iso"


def medium(drive: AttachedDisk) -> Path | None:
    return drive.medium


def shown(vm: VM, id: str) -> str:
    return vm.run(f"head -c 3 {vm.disk(id).node}", check=False).stdout


@pytest.mark.vm(
    drives=[
        *(Drive(FromFixture("first"), media="cdrom", interface=name, id=name) for name in CDROMS),
        Drive(size="1440k", interface="floppy"),
    ]
)
def test_on_every_interface(vm: VM, media: Path) -> None:
    for name in CDROMS:
        drive = vm.disk(name)
        assert medium(drive) == media / "a.iso"
        assert shown(vm, name) == "aaa"
        drive.change(media / "b.iso")
        assert medium(drive) == media / "b.iso"
        assert shown(vm, name) == "bbb"
        assert vm.run(f"blockdev --getsize64 {drive.node}").stdout == f"{2 * MIB}\n"
        drive.eject()
        drive.eject()
        assert medium(drive) is None
        assert "No medium found" in vm.run(f": <{drive.node}", check={1}).stderr
        drive.change(media / "c.iso")
        assert shown(vm, name) == "ccc"
    floppy = vm.disk("disk0")
    floppy.change(media / "b.iso")
    node = floppy.node
    assert shown(vm, "disk0") == "bbb"
    vm.run(f"printf changed | dd of={node} conv=notrunc,fsync")
    floppy.eject()
    floppy.change(media / "b.iso")
    assert shown(vm, "disk0") == "bbb"
    assert (media / "b.iso").read_bytes() == b"b" * 2 * MIB, "a file is never written"


@pytest.mark.vm(drives=[Drive(FromFixture("first"), media="cdrom", interface="scsi")])
def test_snapshots_and_starts_have_what_is_in_it(vm: VM, media: Path) -> None:
    drive = vm.disk("cdrom0")
    drive.change(media / "b.iso")
    second = vm.snapshot()
    drive.eject()
    empty = vm.snapshot()
    drive.change(media / "c.iso")
    (media / "a.iso").unlink()
    vm.restore(second)
    assert shown(vm, "cdrom0") == "bbb"
    assert medium(drive) == media / "b.iso"
    vm.restore(empty)
    assert medium(drive) is None
    assert shown(vm, "cdrom0") == ""
    drive.change(media / "c.iso")
    assert shown(vm, "cdrom0") == "ccc"
    drive.eject()
    vm.power_cut()
    vm.start()
    assert medium(drive) is None
    assert "No medium found" in vm.run(f": <{drive.node}", check={1}).stderr


@pytest.mark.vm(cdrom=FromFixture("first"), drives=[Drive(size="1M")])
def test_locked_and_what_cannot_be(vm: VM, media: Path) -> None:
    drive = vm.disk("cdrom0")
    reader = vm.popen("sleep 1000 </dev/sr0", stdin=False)
    vm.run("until grep -q . /proc/sys/dev/cdrom/lock; do :; done; dd if=/dev/sr0 of=/dev/null bs=2k count=1")
    with pytest.raises(
        TrayLocked, match=r"the guest has locked the tray of drive 'cdrom0', .* or say force=True"
    ) as told:
        drive.eject()
    assert told.value.drive == "cdrom0"
    with pytest.raises(TrayLocked):
        drive.change(media / "b.iso")
    assert medium(drive) == media / "a.iso"
    reader.terminate()
    reader.wait()
    drive.change(media / "b.iso", force=True)
    assert shown(vm, "cdrom0") == "bbb"
    with pytest.raises(SpecError, match=r"disk\.change\('.*/missing\.iso'\): there is no such file"):
        drive.change(media / "missing.iso")
    assert shown(vm, "cdrom0") == "bbb", "looked at before anything was taken out"
    with pytest.raises(SpecError, match="drive 'disk0' is a disk, from which nothing can be taken out"):
        vm.disk("disk0").eject()
    with pytest.raises(SpecError, match="drive 'cdrom0' can have no volatile cache: it is a medium"):
        drive.lose_unflushed()
    with drive.fail("read"):
        drive.eject()
        drive.change(media / "c.iso")
        assert shown(vm, "cdrom0") == "ccc", "errors are those of the medium"
