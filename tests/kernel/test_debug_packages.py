"""With a distribution's package of debug information: the kernel's own frames, and what drgn reads of a dump."""

from __future__ import annotations

import re
from pathlib import Path

import drgn
import pytest

from pytest_kvm.plugin.factories import VMFactory
from tests.outcomes import run_session

pytestmark = pytest.mark.slow

TEST = """
def test_it(vm):
    vm.run("echo c >/proc/sysrq-trigger")
"""


@pytest.mark.parametrize("how", ["beside it", "named"])
def test_frames_of_the_kernel(
    how: str, pytester: pytest.Pytester, installed_kernel: Path, debuggable_kernel: Path
) -> None:
    (vmlinux,) = debuggable_kernel.glob("usr/lib/debug/boot/vmlinux-*")
    options = {
        "beside it": [f"--kvm-kernel={debuggable_kernel}"],
        "named": [f"--kvm-kernel={installed_kernel}", f"--kvm-vmlinux={vmlinux}"],
    }
    said = run_session(pytester, TEST, *options[how]).text("test_it")
    assert re.search(r"\] +sysrq_handle_crash\+0x\S+ \(drivers/tty/sysrq\.c:\d+\)$", said, re.MULTILINE)
    # Assembly, whose files have another prefix than C's in this package.
    assert re.search(
        r"\] +entry_SYSCALL_64_after_hwframe\+0x\S+ \(arch/x86/entry/entry_64\.S:\d+\)$", said, re.MULTILINE
    )
    assert re.search(r"^E +\(inlined by\) do_syscall_64 at arch/x86/entry/common\.c:\d+$", said, re.MULTILINE)
    frames = re.findall(r"\] +(?:\? )?\w\S*\+0x\S+(?: \[\w+\])?(.*)$", said, re.MULTILINE)
    assert len(frames) > 5
    assert all(re.fullmatch(r" \((?:\w+ at )?[\w./-]+:\d+\)", where) for where in frames)


def test_drgn_reads_the_task_that_panicked(vm_factory: VMFactory, debuggable_kernel: Path, tmp_path: Path) -> None:
    (vmlinux,) = debuggable_kernel.glob("usr/lib/debug/boot/vmlinux-*")
    vm = vm_factory(kernel=debuggable_kernel, devices=["vmcoreinfo"])
    with vm.expect_panic("sysrq"):
        vm.run("exec sh -c 'echo $$ >/tmp/pid; echo c >/proc/sysrq-trigger'", check=False)
    program = drgn.Program()
    program.set_core_dump(vm.dump(tmp_path / "vmcore"))
    program.load_debug_info([str(vmlinux)])
    thread = program.crashed_thread()
    assert thread.object.comm.string_() == b"sh"
    trace = thread.stack_trace()
    names = [frame.name for frame in trace]
    where = names.index("sysrq_handle_crash")
    assert names[where - 1] == "panic"
    assert "write_sysrq_trigger" in names[where:]
    file, line, _ = trace[where].source()
    assert file.endswith("drivers/tty/sysrq.c")
    assert line
    # Symbols and types.
    assert program["init_uts_ns"].name.release.string_().decode() == vm.kernel.release
