"""What is said about attaching to a machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pytest_kvm import VM, Image, MachineError, VMFactory
from pytest_kvm.machine import attaching
from pytest_kvm.machine.attaching import Attachable, program
from pytest_kvm.machine.planning import with_monitor


def described(vm: VM) -> list[str]:
    with closing(Attachable(vm)) as attachable:
        return attachable.describe().splitlines()


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def which(name: str) -> str | None:
        return f"/usr/bin/{name}" if name in ("pytest-kvm", "qmp-shell") else real(name)

    real = shutil.which
    monkeypatch.setattr(shutil, "which", which)


@pytest.mark.vm(hostfwd=[8080, "udp::-:53"])
def test_all_ways(vm: VM) -> None:
    host, port = vm.forward(22)
    key = vm._image.ssh_key if vm._image is not None else None
    assert described(vm) == [
        f"VM 'vm' is running, in {vm._folder}:",
        f"  console   pytest-kvm attach {vm._folder}  # login root",
        f"  SSH       ssh -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
        f"-o IdentitiesOnly=yes -i {key} root@{host}",
        f"  8080/tcp  127.0.0.1:{vm.forwarded(8080)[1]}",
        "  53/udp    127.0.0.1:{}".format(vm.forwarded(53, "udp")[1]),
    ]
    vm.pause()
    assert described(vm)[0] == f"VM 'vm' is paused, in {vm._folder}:"


def test_a_monitor(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None, autostart=False)
    vm._plan = with_monitor(vm._plan)
    vm.start()
    assert described(vm)[1:] == [
        f"  console   pytest-kvm attach {vm._folder}",
        f"  QMP       qmp-shell {vm._folder}/monitor",
    ]


@pytest.mark.vm(gdb=True)
def test_gdb(vm: VM) -> None:
    assert f"  gdb       gdb -ex 'target remote {vm._folder}/gdb'" in described(vm)


def test_vnc(vm_factory: VMFactory, tmp_path: Path) -> None:
    vm = vm_factory(image=None, args=["-vnc", f"unix:{tmp_path / 'vnc'}"])
    assert described(vm)[-1] == f"  VNC       {tmp_path / 'vnc'}"
    vm = vm_factory(image=None, args=["-vnc", "127.0.0.1:0,to=999"])
    assert re.fullmatch(r"  VNC       127\.0\.0\.1:\d{4}", described(vm)[-1])


@pytest.mark.vm(image=None, machine="none")
def test_no_way(vm: VM) -> None:
    assert described(vm) == [f"VM 'vm' is running, in {vm._folder}:"]


@pytest.mark.vm(image=None)
def test_one_that_is_off(vm: VM) -> None:
    vm.kill()
    assert described(vm) == ["VM 'vm' is off"]


def test_a_qemu_that_does_not_answer(vm_factory: VMFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "_PATIENCE", 0.5)
    vm = vm_factory(image=None)
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        with pytest.raises(MachineError, match=r"QEMU does not answer within 0\.5 s"):
            described(vm)
    finally:
        os.kill(vm.pid, signal.SIGCONT)


def test_a_password(vm_factory: VMFactory, given: Path) -> None:
    image = Image(given, format="raw", login="admin", password="it's me", ssh_user="admin")
    lines = described(vm_factory(image=image, ready="none", start="boot"))
    assert lines[1].endswith("  # login admin, password it's me")
    assert lines[2].endswith(" admin@127.0.0.1  # password it's me")


def test_a_key_that_is_not_here(vm_factory: VMFactory, given: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    vm = vm_factory(image=Image(given, format="raw", ssh_user="admin", ssh_key=key), ready="none", start="boot")
    key.unlink()
    assert described(vm)[2] == f"  SSH       its key {key} is not here"


def test_no_network(vm_factory: VMFactory, given: Path) -> None:
    # Stopped: what its firmware would say, that there is nothing to boot, is no part of this.
    vm = vm_factory(image=Image(given, format="raw", ssh_user="admin"), nics=[], ready="none", args=["-S"])
    assert [line.split()[0] for line in described(vm)[1:]] == ["console"]


def test_a_program_that_is_not_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert program("pytest-kvm", "pytest_kvm", "attach", "/a b") == f"{sys.executable} -m pytest_kvm attach '/a b'"
