"""Saving machines in whatever state they are, and bringing them back from the folder alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, MachineError, VMFactory
from pytest_kvm.host.amounts import Limits
from pytest_kvm.machine import preserving
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.preserved import MEMORY, Preserved
from pytest_kvm.machine.preserving import preserve
from pytest_kvm.machine.settings import Settings
from pytest_kvm.qemu.plan import IMAGE_DISK
from pytest_kvm.spec.image import Image
from tests.machine import test_uefi as uefi
from tests.machine.test_clones import clock

Reopen = Callable[[Path], VM]


@pytest.fixture
def reopen() -> Iterator[Reopen]:
    """Brings back the machine in a folder, until the end of the test."""
    with ExitStack() as stack:
        launcher = stack.enter_context(closing(Launcher(Settings(limits=Limits()))))

        def make(folder: Path) -> VM:
            return stack.enter_context(closing(launcher.reopen(Preserved.load(folder, launcher.binary))))

        yield make


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "results" / "state"
    shutil.rmtree(tmp_path / "results", ignore_errors=True)  # pytest keeps its folders for a while, and it is large


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


@pytest.mark.vm(firmware="uefi", start="clone")
def test_uefi_and_its_variables(vm: VM, folder: Path, reopen: Reopen) -> None:
    uefi.write(vm, "one")
    assert preserve(vm, folder, test="test_it") == []
    uefi.write(vm, "two")
    again = reopen(folder)
    firmware = again._plan.firmware
    assert firmware is not None
    assert firmware.code.parent == folder
    assert (uefi.variables(again), uefi.kept(again, "one", "two")) == (["one"], ["one"])


@pytest.mark.vm(drives=[Drive(size="8M"), Drive(FromFixture("given"), format="raw")], hostfwd=[8080])
def test_a_running_machine(vm: VM, folder: Path, reopen: Reopen) -> None:
    vm.run("echo RAM >/tmp/note; echo DISK | dd of=/dev/vda conv=fsync; echo OVER | dd of=/dev/vdb conv=notrunc,fsync")
    vm.console.login()
    vm.console.run("kept=here")
    process = vm.popen("until [ -e /tmp/go ]; do usleep 10000; done; echo went >/tmp/went")
    assert preserve(vm, folder, test="test_it") == []
    # It goes on, at the right time, and what becomes of it then is not in the folder.
    assert clock(vm) < 0.2
    vm.run("rm /tmp/note; echo LOST | dd of=/dev/vda conv=fsync; touch /tmp/go")
    assert process.wait(timeout=60) == 0
    vm.close()
    moved = folder.rename(folder.with_name("else, where"))
    before = content(moved)
    for _ in range(2):
        back = reopen(moved)
        assert back.started is not None
        assert back.started.kind == "reopened"
        assert back.run("cat /tmp/note; head -c 5 /dev/vda; head -c 5 /dev/vdb").stdout == "RAM\nDISK\nOVER\n"
        assert back.run("ls /tmp").stdout == "note\n"
        assert back.console.run("echo $kept").stdout == "here\n"
        assert back.ssh.run("cat /tmp/note").stdout == "RAM\n"
        assert back.forwarded(8080)[0] == "127.0.0.1"
        back.run("touch /tmp/go; until [ -s /tmp/went ]; do usleep 10000; done; echo NEW | dd of=/dev/vda conv=fsync")
    # The kernel came along, too.
    back.reboot()
    assert back.run("head -c 3 /dev/vda; ls /tmp").stdout == "NEW"
    assert content(moved) == before


def test_the_console_shows_what_it_had_shown(vm: VM, folder: Path, reopen: Reopen) -> None:
    vm.run("echo '<5>seen before' >/dev/kmsg; echo seen before >/dev/console")
    vm.console.expect("seen before\r\n")
    preserve(vm, folder, test="test_it")
    back = reopen(folder)
    assert "seen before" in back.console.tail()
    assert back.serial is not None
    assert "seen before" in back.serial.log_path.read_text()


def test_a_guest_that_panicked(vm: VM, folder: Path, reopen: Reopen) -> None:
    with vm.expect_panic():
        vm.run("echo c >/proc/sysrq-trigger; sleep 600", timeout=120)
    assert preserve(vm, folder, test="test_it") == []
    # What has panicked does nothing more.
    assert vm.qmp.execute("query-status")["status"] == "postmigrate"
    assert vm.broken is not None
    back = reopen(folder)
    assert back.qmp.execute("query-status")["status"] == "guest-panicked"
    assert "sysrq_handle_crash" in back.console.tail(60)
    assert "RIP=" in back.qmp.hmp("info registers")
    back.reset()
    assert back.run("echo alive").stdout == "alive\n"


def test_a_paused_machine_stays_paused(vm: VM, folder: Path, reopen: Reopen) -> None:
    vm.pause()
    for name in ("first", "second"):
        assert preserve(vm, folder / name, test="test_it") == []
    assert vm.qmp.execute("query-status")["status"] == "paused"
    back = reopen(folder / "second")
    assert back.qmp.execute("query-status")["status"] == "paused"
    for machine in (vm, back):
        machine.resume()
        assert machine.run("echo awake").stdout == "awake\n"


@pytest.mark.vm(drives=[Drive(size="8M")])
def test_a_machine_that_is_off(vm: VM, folder: Path, reopen: Reopen) -> None:
    vm.run("echo DISK | dd of=/dev/vda conv=fsync")
    vm.kill()
    assert preserve(vm, folder, test="test_it") == ["only its disks: it is off, memory and devices are gone"]
    assert not (folder / MEMORY).exists()
    back = reopen(folder)
    assert back.started is not None
    assert (back.started.kind, back.started.reason) == ("boot", "of VM 'vm', only the disks were saved")
    assert back.run("head -c 4 /dev/vda").stdout == "DISK"


@pytest.mark.vm(drives=[Drive(size="4M", interface="nvme")])
def test_what_qemu_cannot_save(vm: VM, folder: Path, reopen: Reopen) -> None:
    vm.run("echo DISK | dd of=/dev/nvme0n1 conv=fsync")
    (remark,) = preserve(vm, folder, test="test_it")
    assert remark.startswith("only its disks, without memory and devices: VM 'vm': QMP command 'migrate' failed: State")
    assert vm.run("echo goes on").stdout == "goes on\n"
    assert reopen(folder).run("head -c 4 /dev/nvme0n1").stdout == "DISK"


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    path = tmp_path / "a.iso"
    path.write_bytes(b"iso".ljust(1 << 16, b"\0"))
    return path


@pytest.mark.vm(
    drives=[
        Drive(FromFixture("given"), format="raw", snapshot=False, serial="written", cache="none"),
        Drive(FromFixture("iso"), format="raw", readonly=True, interface="scsi"),
        Drive(size="4M", interface="ide", format="qcow2"),
    ],
    cdrom=FromFixture("iso"),
)
def test_files_of_the_users(vm: VM, folder: Path, reopen: Reopen, given: Path, iso: Path) -> None:
    vm.run("echo WRITTEN | dd of=/dev/vda conv=notrunc,fsync")
    assert preserve(vm, folder, test="test_it") == []
    vm.close()
    given.unlink()
    iso.unlink()
    back = reopen(folder)
    assert back.run("head -c 7 /dev/vda; cat /sys/block/vda/serial; head -c 3 /dev/sr0").stdout == "WRITTENwritteniso"
    assert sorted(back.run("cat /sys/block/sd*/size").stdout.split()) == ["128", "8192"]


@pytest.mark.slow
def test_a_disk_image_with_ssh_alone(vm_factory: VMFactory, cirros_disk: Path, folder: Path, reopen: Reopen) -> None:
    image = Image(cirros_disk, login="cirros", password="gocubsgo", ssh_user="cirros", sudo=True, seed=True)
    vm = vm_factory(image=image)
    vm.run("echo note >/tmp/note")
    assert preserve(vm, folder, test="test_it") == []
    vm.close()
    preserved = Preserved.load(folder, vm._binary)
    assert IMAGE_DISK in [planned.id for planned, _ in preserved.plan.drives]
    assert reopen(folder).run("cat /tmp/note").stdout == "note\n"


@pytest.mark.vm(image=None, machine="none")
def test_an_empty_machine(vm: VM, folder: Path, reopen: Reopen) -> None:
    preserve(vm, folder, test="test_it")
    assert reopen(folder).qmp.execute("query-status")["status"] == "running"


def test_a_shell_that_does_not_answer(vm: VM, folder: Path, reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preserving, "_GUEST_PATIENCE", 0.5)
    stop = "for p in /proc/[0-9]*; do case $(cat $p/comm) in lane*|control) kill -STOP ${p#/proc/};; esac; done"
    assert vm.popen(f"{stop}; echo stopped").stdout.readline() == "stopped\n"
    with pytest.raises(MachineError, match="did not end within 1 s"):
        vm.run("true", timeout=1)
    assert preserve(vm, folder, test="test_it") == []
    assert vm.ssh.run("echo alive").stdout == "alive\n"
    assert reopen(folder).ssh.run("echo alive").stdout == "alive\n"


def test_a_qemu_that_does_not_answer(vm: VM, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preserving, "_PATIENCE", 0.5)
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        with pytest.raises(MachineError, match=r"QEMU did not answer 'query-status' within 0\.5 s"):
            preserve(vm, folder, test="test_it")
    finally:
        os.kill(vm.pid, signal.SIGCONT)
    assert not folder.exists()
    assert vm.run("echo alive").stdout == "alive\n"


def test_one_that_was_never_started(vm_factory: VMFactory, folder: Path) -> None:
    with pytest.raises(MachineError, match="VM 'vm' was never started: there is nothing to save"):
        preserve(vm_factory(autostart=False), folder, test="test_it")
    assert not folder.exists()


def test_what_cannot_be_written(vm: VM, folder: Path) -> None:
    vm._plan = replace(vm._plan, initrd=folder / "missing")
    with pytest.raises(OSError, match="missing"):
        preserve(vm, folder, test="test_it")
    assert not folder.exists()
    assert vm.run("echo goes on").stdout == "goes on\n"


@pytest.mark.slow
def test_without_compression_where_qemu_img_has_none(
    vm_factory: VMFactory, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = vm_factory(drives=[Drive(size="1M")])
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    real = shutil.which("qemu-img")
    program.write_text(f'#!/bin/sh\ncase "$*" in *zstd*) echo no zstd >&2; exit 1;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(vm, "_binary", replace(vm._binary, path=program.with_name("qemu-system-x86_64")))
    assert preserve(vm, folder, test="test_it") == []
    assert (folder / "disk0.qcow2").exists()
