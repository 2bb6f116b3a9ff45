"""What is wrong with a disk is said before a guest sees it."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Protocol

import pytest

from pytest_kvm.errors import QemuImgError, SpecError
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.images import trust
from pytest_kvm.images.trust import check_disk
from tests.images.disks import BINARY, make_qcow2, qemu_img
from tests.images.test_formats import table


class Check(Protocol):
    def __call__(self, path: Path, format_: str | None = None, *, alone: bool = False) -> str: ...


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def look(path: Path, format_: str | None = None, *, alone: bool = False) -> str:
        return check_disk(path, format_, binary=BINARY, remembered=Remembered(tmp_path / "memory"), alone=alone)

    return look


def refused(check: Check, path: Path, format_: str | None = None, *, alone: bool = False) -> str:
    """Return why a disk is refused."""
    with pytest.raises(SpecError) as caught:
        check(path, format_, alone=alone)
    assert (caught.value.keyword, caught.value.value) == ("image", path)
    start = f"image {str(path)!r} cannot be used: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_good_ones(tmp_path: Path, check: Check) -> None:
    assert check(make_qcow2(tmp_path / "disk.qcow2"), alone=True) == "qcow2"
    (tmp_path / "disk.raw").write_bytes(table((0x80, 0x83, 1, 1), behind=bytes(512)))
    assert check(tmp_path / "disk.raw", alone=True) == "raw"


def test_what_is_said_to_be_raw_is_not_looked_into(tmp_path: Path, check: Check) -> None:
    (tmp_path / "secret").write_text("a file of the host's".ljust(1 << 20))
    disk = make_qcow2(tmp_path / "disk", "-F", "raw", "-b", tmp_path / "secret", data=0)
    assert check(disk, "raw") == "raw"


def test_truncated(tmp_path: Path, check: Check) -> None:
    disk = make_qcow2(tmp_path / "disk")
    os.truncate(disk, 5 << 20)
    assert refused(check, disk) == "it is truncated: it has 5.0 MiB, and refers to more; fetch it again"
    os.truncate(disk, 60)
    assert refused(check, disk) == "it is no qcow2 image, or not all of it"
    raw = tmp_path / "raw"
    raw.write_bytes(table((0x80, 0x83, 2048, 4096), behind=bytes(512)))
    assert refused(check, raw) == (
        "it is truncated: it has 0.0 MiB, and partitions up to 3.0 MiB; fetch it again (format='raw' takes it as it is)"
    )
    assert check(raw, "raw") == "raw"


def test_corrupt(tmp_path: Path, check: Check) -> None:
    disk = make_qcow2(tmp_path / "disk")
    with disk.open("r+b") as file:
        file.seek(40)
        (at,) = struct.unpack(">Q", file.read(8))
        file.seek(at)
        file.write(b"\x80\0\0\0\0\0\x12\x34")
    reason = refused(check, disk)
    assert reason.startswith("it is damaged: ERROR")
    assert reason.endswith("fetch it again, or repair it: qemu-img check -r all")


def test_marked_as_corrupt(tmp_path: Path, check: Check) -> None:
    disk = make_qcow2(tmp_path / "disk")
    with disk.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 1 << 1))
    assert refused(check, disk) == "it is marked as corrupt; repair it: qemu-img check -r all"


def test_leaked_clusters_do_no_harm(tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(*_: object) -> str:
        raise QemuImgError("", returncode=3, stderr="Leaked cluster 4")

    monkeypatch.setattr(trust, "qemu_img", leaks)
    assert check(make_qcow2(tmp_path / "disk")) == "qcow2"


def test_encrypted(tmp_path: Path, check: Check) -> None:
    disk = make_qcow2(tmp_path / "disk")
    with disk.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack(">I", 2))
    assert refused(check, disk) == "it is encrypted"


def test_files_beside_it(tmp_path: Path, check: Check) -> None:
    base = make_qcow2(tmp_path / "base")
    middle = make_qcow2(tmp_path / "middle", "-F", "qcow2", "-b", "base")
    top = make_qcow2(tmp_path / "top", "-F", "qcow2", "-b", middle)
    assert check(top) == "qcow2"
    assert refused(check, top, alone=True) == (
        f"it has a backing file, {str(middle)!r}; an image that is fetched has to be whole by itself"
    )
    os.truncate(base, 5 << 20)
    assert refused(check, top) == (
        f"{base}, which it is an overlay on: it is truncated: it has 5.0 MiB, and refers to more; fetch it again"
    )
    base.unlink()
    assert refused(check, top) == (
        "it has a backing file that does not exist, 'base'; "
        "make one file of it: qemu-img convert -O qcow2 middle NEW, where it does"
    )


def test_files_elsewhere(tmp_path: Path, check: Check) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    folder = tmp_path / "images"
    folder.mkdir()
    for name in (str(tmp_path / "secret"), "../secret"):
        disk = make_qcow2(folder / "disk", "-F", "raw", "-b", name, data=0)
        assert refused(check, disk) == (
            f"it has a backing file outside its folder, {name!r}; move it there, or "
            "make one file of it: qemu-img convert -O qcow2 disk NEW"
        )
    (folder / "link").symlink_to(tmp_path / "secret")
    disk = make_qcow2(folder / "disk", "-F", "raw", "-b", "link", data=0)
    assert refused(check, disk).startswith("it has a backing file outside its folder, 'link'")
    disk = make_qcow2(folder / "disk", "-o", f"data_file={tmp_path}/data", data=0)
    assert refused(check, disk).startswith("it has a data file outside its folder")


@pytest.mark.parametrize(
    "name", ["nbd://127.0.0.1:1/x", "file:secret", 'json:{"driver":"raw","file":{"driver":"file","filename":"x"}}']
)
def test_names_that_qemu_does_not_take_for_paths(tmp_path: Path, check: Check, name: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 20))  # not the one that QEMU would open
    disk = make_qcow2(tmp_path / "disk", "-u", "-F", "raw", "-b", name, data=0)
    assert refused(check, disk).startswith(f"it has a backing file that is not named by its path, {name!r}; make")


def test_a_backing_file_that_may_name_others(tmp_path: Path, check: Check) -> None:
    qemu_img("create", "-q", "-f", "vmdk", tmp_path / "base", "1M")
    disk = make_qcow2(tmp_path / "disk", "-F", "vmdk", "-b", "base", data=0)
    assert refused(check, disk) == "it has a backing file, 'base', of a format that may name other files: vmdk"


def test_a_fetched_image_of_a_format_that_may_name_others(tmp_path: Path, check: Check) -> None:
    qemu_img("create", "-q", "-f", "vmdk", tmp_path / "disk", "1M")
    assert check(tmp_path / "disk", "vmdk") == "vmdk"
    assert refused(check, tmp_path / "disk", "vmdk", alone=True) == (
        "a vmdk image may name other files, and what is fetched has to be whole by itself"
    )
    qemu_img("create", "-q", "-f", "vdi", tmp_path / "disk", "1M")
    assert check(tmp_path / "disk", "vdi", alone=True) == "vdi"


def test_a_link_to_an_image(tmp_path: Path, check: Check) -> None:
    """QEMU looks for relative names beside the link."""
    (tmp_path / "real").mkdir()
    make_qcow2(tmp_path / "real" / "base")
    make_qcow2(tmp_path / "real" / "disk", "-F", "qcow2", "-b", "base", data=0)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "disk")
    assert refused(check, tmp_path / "link").startswith("it has a backing file that does not exist, 'base'")


def test_what_was_wrong_once_is_looked_at_again(tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.remembering._SETTLED", 0)
    disk = make_qcow2(tmp_path / "disk")

    def fails(*_: object) -> str:
        raise QemuImgError("", returncode=1, stderr="out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(trust, "qemu_img", fails)
        assert refused(check, disk).startswith("it is not readable: out of memory")
    assert check(disk) == "qcow2"


def test_an_overlay_on_itself(tmp_path: Path, check: Check) -> None:
    disk = make_qcow2(tmp_path / "disk", "-u", "-F", "qcow2", "-b", "disk", data=0)
    assert refused(check, disk) == "it is an overlay on an overlay, 32 times: it may be on itself"


def test_no_file(tmp_path: Path, check: Check) -> None:
    with pytest.raises(SpecError, match=r"none' cannot be read: No such file or directory"):
        check(tmp_path / "none")


def test_a_disk_is_looked_into_once(tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.remembering._SETTLED", 0)
    disk = make_qcow2(tmp_path / "disk")
    check(disk)
    monkeypatch.setattr(trust, "qemu_img", None)
    assert check(disk) == "qcow2"
