"""What is known about a machine when somebody has to explain a failure."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, VMFactory
from pytest_kvm.errors import LaunchError, MachineError
from pytest_kvm.machine import evidence as module
from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.qemu.plan import DriveFile
from pytest_kvm.waiting import Deadline


def known(vm: VM, *, screen: bool = False) -> Evidence:
    evidence = vm.evidence(screen=screen)
    assert evidence is not None
    return evidence


def present(evidence: Evidence) -> set[str]:
    return {name for name, parts in evidence.files.items() if any(part.exists() for part in parts)}


def test_a_running_machine(vm: VM) -> None:
    vm.run("echo 'seen on the console' >/dev/console; exit 3", check=False)
    evidence = known(vm)
    assert (evidence.name, evidence.spec, evidence.started) == ("vm", vm.spec, vm.started)
    assert evidence.command == vm.command
    assert present(evidence) == {"console.log", "qemu.log", "qmp.jsonl", "commands.jsonl"}
    assert [record["status"] for record in evidence.commands] == [3]
    assert evidence.all_logged
    assert vm.watch.wait_only(lambda: "seen on the console" in "".join(known(vm).tail(20)), Deadline(30))
    assert known(vm).tail(0) == []
    assert evidence.troubles == []


def test_a_machine_that_never_was(vm_factory: VMFactory) -> None:
    assert vm_factory(image=None, autostart=False).evidence() is None


def test_a_machine_that_does_not_start(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None, autostart=False, args=["-nonsense"])
    with pytest.raises(LaunchError):
        vm.start()
    evidence = known(vm)
    assert evidence.command[-1] == "-nonsense"
    assert evidence.started is None
    assert "invalid option" in evidence.files["qemu.log"][0].read_text()


def test_what_the_disks_began_with(vm_factory: VMFactory, given: Path) -> None:
    drives = [Drive(given), Drive(given, readonly=True), Drive(size="1M")]
    vm = vm_factory(image=None, drives=drives)
    assert known(vm).originals() == {
        "disk0": DriveFile(given, "raw"),
        "disk1": DriveFile(given, "raw", read_only=True),
        "disk2": DriveFile(Path(), "raw", size=1 << 20),
    }
    given.unlink()
    assert list(known(vm).originals()) == ["disk2"]


def test_the_screen(vm_factory: VMFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = vm_factory(image=None, devices=["VGA"])
    assert "screen.png" not in present(known(vm))
    evidence = known(vm, screen=True)
    assert evidence.files["screen.png"][0].read_bytes().startswith(b"\x89PNG")
    assert "screen.ppm" not in present(evidence)
    # As an older QEMU, or one that was built without libpng.
    monkeypatch.setitem(module.SCREENS, "screen.png", {"format": "none such"})
    evidence.files["screen.png"][0].unlink()
    assert known(vm, screen=True).files["screen.ppm"][0].read_bytes().startswith(b"P6")


def test_no_screen(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None)
    assert not {"screen.png", "screen.ppm"} & present(known(vm, screen=True))
    assert "screendump" not in vm.qmp_journal.path.read_text()
    vm.kill()
    assert not {"screen.png", "screen.ppm"} & present(known(vm, screen=True))


def test_nobody_waits_long_for_a_screen(vm_factory: VMFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = vm_factory(image=None, devices=["VGA"])
    monkeypatch.setattr(module, "_SCREEN_PATIENCE", 0.2)
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        assert "screen.png" not in present(known(vm, screen=True))
    finally:
        os.kill(vm.pid, signal.SIGCONT)


def test_the_screen_of_a_machine_that_does_not_come_up(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None, devices=["VGA"], autostart=False, ready="login", timeout=1)
    with pytest.raises(MachineError):  # its firmware finds nothing to boot, maybe in time
        vm.start()
    assert not vm.running
    assert "screen.png" in present(known(vm))


def test_it_is_asked_for_at_the_end_once(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None)
    left: list[set[str]] = []
    vm.leave = lambda: left.append(present(known(vm)))
    folder = known(vm).files["console.log"][0].parent
    vm.close()
    vm.close()
    assert left == [{"console.log", "firmware.log", "qemu.log", "qmp.jsonl"}]
    assert not folder.exists()


def test_what_goes_wrong_with_it_does_not_keep_the_machine(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None)
    folder = known(vm).files["console.log"][0].parent

    def fail() -> None:
        raise MachineError("no evidence")

    vm.leave = fail
    with pytest.raises(MachineError, match="no evidence"):
        vm.close()
    assert not vm.running
    assert not folder.exists()
