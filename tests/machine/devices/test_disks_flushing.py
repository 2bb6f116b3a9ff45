"""What is on a disk after the power was cut: what was flushed, and of the rest what the disk has no cache for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, SpecError
from pytest_kvm.machine.devices.writelog import NotALog, replay
from tests.machine.devices.files import content

BLOCK = 4096


def write(vm: VM, text: str, block: int, *, flush: bool = False, id: str = "disk0") -> None:
    """Write a block: when the last who has the disk open closes it, it has left the guest, and is flushed or not."""
    how = "notrunc,fsync" if flush else "notrunc"
    vm.run(f"yes {text} | head -c {BLOCK} | dd of={vm.disk(id).node} bs={BLOCK} seek={block} conv={how}")


def begins(data: bytes, count: int) -> str:
    return data[: count * BLOCK : BLOCK].replace(b"\0", b"-").decode()


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_what_is_in_the_guest_only_is_lost(vm: VM, tmp_path: Path) -> None:
    write(vm, "A", 2000)  # beyond the file system
    vm.run(
        "mke2fs -q /dev/vda 4000 && mount -t ext4 /dev/vda /mnt && echo kept >/mnt/kept && sync && echo lost >/mnt/lost"
    )
    vm.power_cut()
    data = content(vm, "disk0", tmp_path)
    assert b"kept\n" in data
    assert b"lost\n" not in data, "it was in the guest's page cache"
    assert data[2000 * BLOCK :].startswith(b"A"), "the host has what has left the guest"


@pytest.mark.vm(drives=[Drive(size="8M"), Drive(size="8M", cache="writethrough")])
def test_a_volatile_cache(vm: VM, tmp_path: Path) -> None:
    disk = vm.disk("disk0")
    write(vm, "A", 0)
    for name in ("disk0", "disk0", "disk1"):
        vm.disk(name).lose_unflushed()
    write(vm, "B", 1, flush=True)
    write(vm, "C", 2)
    write(vm, "D", 0, id="disk1")
    assert vm.run("head -c 1 /dev/vda; dd if=/dev/vda bs=4k skip=2 count=1 | head -c 1").stdout == "AC"
    with pytest.raises(SpecError, match="VM 'vm': no snapshot of a machine with disks that lose what is unflushed"):
        vm.snapshot()
    with pytest.raises(SpecError, match="drive 'disk0' cannot be resized: not while it loses what is unflushed"):
        disk.resize("16M")
    with disk.fail("write"):
        vm.run("dd if=/dev/zero of=/dev/vda bs=4k conv=notrunc,fsync count=1", check={1})
    vm.power_cut()
    assert begins(content(vm, "disk0", tmp_path), 3) == "AB-"
    assert begins(content(vm, "disk1", tmp_path), 1) == "D", "what has no cache loses nothing"
    vm.start()
    assert vm.run("head -c 1 /dev/vda; dd if=/dev/vda bs=4k skip=1 count=1 | head -c 1").stdout == "AB"
    disk.lose_unflushed()
    write(vm, "E", 3)
    vm.shutdown()
    assert begins(content(vm, "disk0", tmp_path), 4) == "AB-E", "who ends in good order flushes"
    assert not list(vm._folder.glob("disk0.*/*")), "nothing is left of it"


@pytest.mark.vm(drives=[Drive(size="8M", format="qcow2", discard="unmap")])
def test_a_file_system_in_it(vm: VM, tmp_path: Path) -> None:
    vm.run("mke2fs -q /dev/vda")
    vm.disk("disk0").lose_unflushed()
    vm.run("echo 0 >/proc/sys/vm/dirty_writeback_centisecs")
    vm.run("mount -t ext4 /dev/vda /mnt && echo kept >/mnt/kept && sync")
    vm.run("echo lost >/mnt/lost && rm /mnt/kept")
    vm.kill()
    data = content(vm, "disk0", tmp_path)
    assert b"kept\n" in data
    assert b"lost\n" not in data


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.raw"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.mark.vm(drives=[Drive(FromFixture("given"), snapshot=False), Drive(FromFixture("other"), readonly=True)])
def test_what_has_no_volatile_cache(vm: VM) -> None:
    with pytest.raises(SpecError, match=r"'disk0' can have no volatile cache: its file, .*, is not the machine's own"):
        vm.disk("disk0").lose_unflushed()
    with pytest.raises(SpecError, match="'disk1' can have no volatile cache: it is read-only"):
        vm.disk("disk1").lose_unflushed()


class Log:
    """A log as blklogwrites would have written it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[bytes] = []

    def add(self, sector: int, text: str, flags: int = 0) -> None:
        data = text.encode().ljust(512 if text else 0, b".")
        self.entries.append(struct.pack("<QQQQ", sector, len(data) // 512, flags, 0).ljust(512, b"\0") + data)

    def discard(self, sector: int) -> None:
        self.entries.append(struct.pack("<QQQQ", sector, 1, 4, 0).ljust(512, b"\0"))

    def replayed(self, size: int = 4, *, magic: int = 0x6A736677736872, cut: int = 0) -> str:
        head = struct.pack("<QQQI", magic, 1, len(self.entries), 512).ljust(512, b"\0")
        data = head + b"".join(self.entries)
        self.path.write_bytes(data[: len(data) - cut])
        disk = self.path.with_name("disk")
        disk.write_bytes(b"-" * 512 * size)
        with self.path.open("rb") as log, disk.open("r+b") as file:
            replay(log.fileno(), file.fileno())
        return disk.read_bytes()[::512].decode()


FLUSH, FUA = 1, 2


def test_a_log_is_replayed_up_to_the_last_flush(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    assert log.replayed() == "----"
    log.add(0, "a")
    assert log.replayed() == "----"
    log.add(0, "", FLUSH)
    log.add(1, "b")
    log.add(2, "c", FUA)
    assert log.replayed() == "a-c-"
    log.discard(0)
    log.add(0, "d")
    assert log.replayed(cut=1) == "a-c-", "an entry that is not complete"
    log.add(0, "", FLUSH)
    assert log.replayed() == "dbc-"


def test_what_is_no_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    with pytest.raises(NotALog, match="its superblock has magic 0x7, version 1, sectors of 512 bytes"):
        log.replayed(magic=7)
    for data in (b"", bytes(512)):
        log.path.write_bytes(data)
        with log.path.open("rb") as file:
            assert replay(file.fileno(), -1) == 0
