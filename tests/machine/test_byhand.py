"""What command.txt says does start the machine, for a person at a terminal."""

from __future__ import annotations

from pathlib import Path

import pexpect
import pytest

from pytest_kvm import VM, Drive, Nic, VMFactory
from pytest_kvm.report.command import command_text

# Seconds; a person has patience.
PATIENCE = 300


def spawned(vm: VM, folder: Path) -> pexpect.spawn[str]:
    evidence = vm.evidence()
    assert evidence is not None
    script = folder / "command.txt"
    script.write_text(command_text(evidence))
    return pexpect.spawn("/bin/sh", [str(script)], timeout=PATIENCE, encoding="utf-8", codec_errors="replace")


@pytest.mark.parametrize("start", [pytest.param("boot", marks=pytest.mark.slow), "clone"])
def test_a_guest_with_disks(vm_factory: VMFactory, given: Path, tmp_path: Path, start: str) -> None:
    drives = [Drive(given, serial="given"), Drive(size="3M"), Drive(given, media="cdrom")]
    vm = vm_factory(drives=drives, start=start, hostfwd=[8080], nics=[Nic(), Nic(model="e1000e")])
    vm.run("echo 'written in the test' >/dev/vda")
    before = given.read_bytes()
    vm.close()
    with spawned(vm, tmp_path) as terminal:
        terminal.expect("login: ")
        terminal.sendline("root")
        terminal.expect("# ")
        terminal.sendline("set -- /sys/class/net/eth*; echo $# $(cat /sys/block/vd[ab]/size) $(head -c 5 /dev/vda) .")
        terminal.expect(r"\n2 2048 6144 given \.")
        terminal.sendline(
            "echo 'by hand' | dd of=/dev/vda conv=fsync && echo wr''itten; head -c 5 /dev/sr0; mount | head"
        )
        terminal.expect("written")
        terminal.expect("given")
        terminal.send("\x01c")
        terminal.expect(r"\(qemu\) ")
        terminal.sendline("quit")
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 0
    assert given.read_bytes() == before


def test_an_empty_machine(vm_factory: VMFactory, tmp_path: Path) -> None:
    vm = vm_factory(image=None, machine="none")
    with spawned(vm, tmp_path) as terminal:
        terminal.expect(r"\(qemu\) ")
        terminal.sendline("info name")
        terminal.expect("vm")
        terminal.sendline("quit")
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 0
