"""Machines with a TPM: registers, clones, snapshots, and what becomes of swtpm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from pytest_kvm import VM, HostError, MachineError, SpecError, VMFactory
from pytest_kvm.host import swtpm
from pytest_kvm.host.amounts import Limits
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.preserved import Preserved
from pytest_kvm.machine.preserving import preserve
from pytest_kvm.machine.settings import Settings
from pytest_kvm.machine.tpm import NAME
from pytest_kvm.waiting import Deadline
from tests.sessions import PATIENCE, Session, temporary

__all__ = ["temporary"]  # a fixture

RESET = "0" * 64
# TPM 2.0, part 3, TPM2_PCR_Extend of register 16 with a SHA-256 digest, authorized by an empty password.
EXTEND = bytes.fromhex("8002 00000041 00000182 00000010 00000009 40000009 0000 00 0000 00000001 000b") + b"\xab" * 32


def register(vm: VM) -> str:
    return vm.run("cat /sys/class/tpm/tpm0/pcr-sha256/16").stdout.strip()


def extend(vm: VM) -> str:
    """Extend the register, and return its new value."""
    command = "".join(f"\\{byte:03o}" for byte in EXTEND)
    vm.run(f"exec 3<>/dev/tpm0; printf '{command}' >&3; dd bs=4096 count=1 <&3 >/dev/null")
    return register(vm)


def daemon_of(vm: VM) -> int:
    (daemon,) = vm.daemons
    return daemon.process.pid


@pytest.mark.vm(tpm=True, start="clone")
def test_clones_and_snapshots(vm: VM, vm_factory: VMFactory) -> None:
    assert register(vm) == RESET
    first = extend(vm)
    assert first != RESET
    state = vm.snapshot()
    assert extend(vm) != first
    other = vm_factory("other", tpm="2.0", start="clone")
    copy = vm_factory(snapshot=state)
    assert (register(other), register(copy)) == (RESET, first)
    vm.restore(state)
    assert register(vm) == first
    assert len({daemon_of(each) for each in (vm, other, copy)}) == 3


@pytest.mark.vm(tpm=True, start="clone")
def test_a_machine_that_is_brought_back(vm: VM, tmp_path: Path) -> None:
    before = extend(vm)
    assert preserve(vm, tmp_path / "state", test="test_it") == []
    with contextlib.closing(Launcher(Settings(limits=Limits()))) as launcher:
        found = Preserved.load(tmp_path / "state", launcher.binary)
        with contextlib.closing(launcher.reopen(found)) as again:
            assert register(again) == before
    shutil.rmtree(tmp_path / "state")


@pytest.mark.slow
@pytest.mark.vm(tpm="1.2")
def test_an_old_one(vm: VM) -> None:
    assert "active" in vm.run("ls /sys/class/tpm/tpm0").stdout.split()
    assert vm.run("cat /sys/class/tpm/tpm0/tpm_version_major").stdout == "1\n"


def test_it_ends_with_the_machine(vm_factory: VMFactory) -> None:
    vm = vm_factory(tpm=True)
    (daemon,) = vm.daemons
    vm.kill()
    assert daemon.process.wait(Deadline(10))
    assert daemon.process.returncode == 0
    vm.start()
    (again,) = vm.daemons
    assert again.process.running
    assert register(vm) == RESET
    vm.close()
    assert not again.process.running


def test_it_ends_by_itself(vm_factory: VMFactory) -> None:
    vm = vm_factory(tpm=True)
    vm.daemons[0].process.signal(signal.SIGKILL)
    with pytest.raises(MachineError) as caught:
        vm.run("while :; do sleep 1; done")
    assert str(caught.value) == "VM 'vm': swtpm, which served the TPM, was killed by SIGKILL. It said: (nothing)"
    evidence = vm.evidence()
    assert evidence is not None
    assert evidence.files["swtpm.log"][0].exists()
    vm.watcher.findings.all[-1].told = True


def test_machines_without_one(vm_factory: VMFactory) -> None:
    with pytest.raises(SpecError) as caught:
        vm_factory(tpm=True, machine="microvm")
    assert str(caught.value) == ("vm(machine='microvm', tpm=True): there is a TPM for the machines q35 and pc only")


def test_hosts_without_one(vm_factory: VMFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swtpm, "find", lambda name: None)
    with pytest.raises(HostError) as caught:
        vm_factory(tpm=True)
    assert str(caught.value) == (
        f"{NAME}, which a machine with a TPM needs, is not installed\n"
        "  install it with 'pytest-kvm doctor --install --with swtpm'"
    )


def test_it_ends_when_pytest_is_killed(pytester: pytest.Pytester, temporary: Path) -> None:
    os.mkfifo(pytester.path / "ready")
    pytester.makepyfile("""
        import pytest
        import time

        @pytest.mark.vm(image=None, tpm=True)
        def test_wait(vm):
            with open("ready", "w") as ready:
                ready.write(str(vm.pid))
            time.sleep(10_000)
    """)
    with contextlib.closing(Session(pytester.path, temporary)) as session:
        assert session.heard(pytester.path / "ready")
        assert len(session.processes("swtpm")) == 1
        session.process.kill()
        assert session.gone(PATIENCE, "swtpm")
        assert session.gone(PATIENCE, "qemu")
        session.sweep()
        assert session.left() == []
