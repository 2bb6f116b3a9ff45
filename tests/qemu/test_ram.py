"""RAM in a file: filled by one, changed by nobody after that."""

from __future__ import annotations

import mmap
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.qemu.plan import Ram
from pytest_kvm.qemu.ram import RamFiles
from tests.qemu.fakes import binary

PAGE = 4096
OLD, NEW = replace(binary(), version=(7, 2, 22)), replace(binary(), version=(8, 2, 0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.write_bytes(b"\1" * PAGE + bytes(2 * PAGE) + b"\2" * PAGE)
    return path


def test_filled_and_sealed() -> None:
    with closing(RamFiles.empty([2 * PAGE, PAGE])) as ram:
        assert ram.shared() == Ram(ram.descriptors, shared=True)
        os.pwrite(ram.descriptors[0], b"x", PAGE)
        ram.seal()
        with pytest.raises(PermissionError):
            os.pwrite(ram.descriptors[0], b"y", PAGE)
        with pytest.raises(PermissionError):
            os.truncate(ram.descriptors[0], 0)
        with pytest.raises(PermissionError):
            os.pwrite(ram.descriptors[1], b"y", 0)
        assert ram.private() == Ram(ram.descriptors, protected=False)


def test_an_old_qemu_gets_a_copy_that_it_cannot_write(saved: Path) -> None:
    with closing(RamFiles.opened([saved], OLD)) as ram:
        assert os.pread(ram.descriptors[0], 4 * PAGE, 0) == saved.read_bytes()
        again = os.open(f"/proc/self/fd/{ram.descriptors[0]}", os.O_RDWR)  # as QEMU opens it
        with pytest.raises(PermissionError):
            os.pwrite(again, b"y", 0)
        with mmap.mmap(again, 0, flags=mmap.MAP_PRIVATE) as mapped:
            mapped[0] = 7
        os.close(again)
        assert os.pread(ram.descriptors[0], 1, 0) == b"\1"
        assert not ram.private().protected


def test_a_new_qemu_gets_the_file(saved: Path) -> None:
    with closing(RamFiles.opened([saved], NEW)) as ram:
        assert os.path.samestat(os.fstat(ram.descriptors[0]), saved.stat())
        assert ram.private().protected


def test_a_duplicate_outlives_its_original(saved: Path) -> None:
    original = RamFiles.opened([saved], OLD)
    with closing(original.duplicate()) as ram:
        original.close()
        assert os.pread(ram.descriptors[0], 1, 0) == b"\1"
        assert ram.private() == Ram(ram.descriptors)
