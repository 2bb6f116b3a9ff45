"""drgn reads a dump of a guest that has panicked, without debug information."""

from __future__ import annotations

import re
from pathlib import Path

import drgn
import pytest

from pytest_kvm import VM


@pytest.mark.vm(devices=["vmcoreinfo"])
def test_it_reads_a_dump(vm: VM, tmp_path: Path) -> None:
    with vm.expect_panic("sysrq"):
        vm.run("echo said by this test >/dev/kmsg; echo c >/proc/sysrq-trigger", check=False)
    program = drgn.Program()
    program.set_core_dump(vm.dump(tmp_path / "vmcore"))
    assert program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    info = program["VMCOREINFO"].string_().decode()
    assert f"OSRELEASE={vm.kernel.release}\n" in info
    log = log_of(program, info)
    assert b"said by this test" in log
    assert b"Kernel panic - not syncing: sysrq triggered crash" in log


def log_of(program: drgn.Program, info: str) -> bytes:
    """Return the text of the kernel's log (kernel/printk/printk_ringbuffer.h), found by what VMCOREINFO says of it."""

    def number(kind: str, name: str, base: int = 10) -> int:
        match = re.search(rf"^{kind}\({re.escape(name)}\)=(\w+)$", info, re.MULTILINE)
        assert match is not None, name
        return int(match[1], base)

    buffer = program.read_u64(number("SYMBOL", "prb", 16))
    ring = buffer + number("OFFSET", "printk_ringbuffer.text_data_ring")
    bits = program.read_u32(ring + number("OFFSET", "prb_data_ring.size_bits"))
    data = program.read_u64(ring + number("OFFSET", "prb_data_ring.data"))
    text: bytes = program.read(data, 1 << bits)
    return text
