"""A disk that was made for a guest, which writes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, QemuImgError, images
from tests.images.verbs.disks import MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return images.create(tmp_path / "a disk, for a guest.qcow2", "16M", options={"lazy_refcounts": True})


@pytest.mark.vm(drives=[Drive(FromFixture("disk"), format="qcow2", snapshot=False)])
def test_a_disk_in_use(vm: VM, disk: Path, tmp_path: Path) -> None:
    vm.run("yes 0123456 | dd of=/dev/vda bs=1M seek=2 count=3 iflag=fullblock conv=fsync")
    over = images.create(tmp_path / "over", "16M", backing=disk, backing_format="qcow2")
    with pytest.raises(QemuImgError, match=r"over'\): '.*for a guest\.qcow2', which it consists of, is open"):
        images.check(over)
    refused: dict[str, Callable[[], object]] = {
        "check": lambda: images.check(disk),
        "convert": lambda: images.convert(disk, tmp_path / "new"),
        "resize": lambda: images.resize(disk, "+1M"),
        "snapshot": lambda: images.snapshot(disk, "one"),
        "create": lambda: images.create(disk, "1M", overwrite=True),
    }
    for verb, call in refused.items():
        with pytest.raises(QemuImgError) as refusal:
            call()
        assert refusal.value.in_use
        hint = ", or read it as it is at this moment: force_share=True" if verb in ("check", "convert") else ""
        assert str(refusal.value) == (
            f"images.{verb}({str(disk)!r}): it is open in a running machine, or in another process; "
            f"end that first (vm.shutdown()){hint}"
        )
    assert images.info(disk, force_share=True).virtual_size == 16 * MIB
    vm.shutdown()
    assert images.check(disk).ok
    raw = images.convert(disk, tmp_path / "raw", format="raw")
    assert raw.read_bytes()[2 * MIB :].startswith(b"0123456\n" * 1000)
    written = [extent for extent in images.map(disk) if extent.data]
    assert (written[0].start, sum(extent.length for extent in written)) == (2 * MIB, 3 * MIB)
    assert images.compare(disk, raw)
    vm.start()
    assert vm.run("dd if=/dev/vda bs=1M skip=2 count=1 2>/dev/null | head -c 7").stdout == "0123456"
