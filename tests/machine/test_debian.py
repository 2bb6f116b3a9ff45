"""A cloud image from end to end: boot loader, systemd, cloud-init, OpenSSH, guest agent, and clones of all that."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import VM, Drive, Image, Nic, VMFactory
from pytest_kvm.images.published import find_published
from pytest_kvm.images.publishers import PUBLISHERS

pytestmark = [pytest.mark.slow, pytest.mark.vm(timeout=300)]

# With the same words to all, they have a template in common, whatever they are called.
SEED: dict[str, Any] = {
    "user_data": "#!/bin/sh\nsleep 1\necho done as $(id -un) >/srv/user-data\n",
    "meta_data": {"local-hostname": "deb", "instance-id": "deb"},
}


@pytest.fixture(scope="session")
def debian(debian_disk: Path) -> Image:
    """The description of the catalogue, with a disk made of packages."""
    published = find_published("debian:13", PUBLISHERS)
    assert published is not None
    return replace(published.image, disk=debian_disk, name="debian", agent=True)


@pytest.fixture
def debian_vm(debian: Image, vm_factory: VMFactory) -> VM:
    return vm_factory(image=debian, smp=2, **SEED)


def test_seed_and_ways_in(debian_vm: VM, tmp_path: Path) -> None:
    assert debian_vm.started is not None
    assert debian_vm.started.kind == "clone"
    # cloud-init has done all that it was told before the test begins.
    assert debian_vm.run("cat /srv/user-data; hostname; id -un; sudo id -un").stdout == (
        "done as root\ndeb\ndebian\nroot\n"
    )
    assert debian_vm.run("cloud-init status").stdout == "status: done\n"
    debian_vm.console.login()
    assert debian_vm.console.run("id -un; sudo -n id -un").stdout == "debian\nroot\n"
    assert debian_vm.agent.run("id -un").stdout == "root\n"
    with debian_vm.agent.frozen() as number:
        assert number >= 1
    (tmp_path / "here").write_text("content")
    debian_vm.ssh.put(tmp_path / "here", "there")
    assert debian_vm.run("cat there").stdout == "content"


def test_clones_have_their_own_time_and_random_numbers(debian: Image, vm_factory: VMFactory) -> None:
    numbers = set()
    for _ in range(2):
        vm = vm_factory(image=debian, smp=2, **SEED)
        assert abs(float(vm.run("date +%s.%N").stdout) - time.time()) < 5
        numbers.add(vm.run("head -c 16 /dev/urandom", text=False).stdout)
    assert len(numbers) == 2


def test_reboot(debian_vm: VM) -> None:
    debian_vm.run("touch /tmp/here here; sync")
    debian_vm.reboot()
    assert debian_vm.run("ls /tmp/here here 2>/dev/null", check=2).stdout == "here\n"
    debian_vm.shutdown()


def test_devices(debian_vm: VM) -> None:
    """udev loads drivers there, and the user is not root."""
    disk = debian_vm.plug(Drive(size="16M", serial="plugged"))
    assert debian_vm.run(f"lsblk -nbo SIZE,SERIAL {disk.node}").stdout.split() == [str(16 << 20), "plugged"]
    nic = debian_vm.plug(Nic())
    assert debian_vm.run(f"cat /sys/class/net/{nic.ifname}/address").stdout == f"{nic.mac}\n"
    assert debian_vm.virtio("net1").config["mac"] == nic.mac
    assert debian_vm.virtio("disk0").config["capacity"] == (16 << 20) // 512
    debian_vm.unplug("disk0")
    debian_vm.unplug("net1")
    state = debian_vm.snapshot()
    debian_vm.restore(state)
    assert debian_vm.virtio("net0").driver == "virtio_net"
