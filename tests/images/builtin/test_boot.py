"""The built-in guest itself, made from the distribution's packages and booted by a bare QEMU."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.spec.image import Image

QEMU = "qemu-system-x86_64"
LIMIT = 120.0


@pytest.fixture(scope="session")
def tiny() -> Image:
    """The built-in guest out of the cache, built there by the first who needs it."""
    if shutil.which(QEMU) is None:
        pytest.fail(f"{QEMU} is not installed (tox installs it)")
    return tiny_image()


class Console:
    """The serial console of a running machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.seen = ""

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def expect(self, pattern: str) -> str:
        """Return what comes until the pattern, which is taken away."""
        end = time.monotonic() + LIMIT
        assert self._process.stdout is not None
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            assert data, f"no {pattern!r} in {self.seen!r}"
            self.seen += data.decode(errors="replace")
        before, self.seen = self.seen[: match.start()], self.seen[match.end() :]
        return before

    def login(self, image: Image) -> None:
        self.expect("tiny login: ")
        self.send("root")
        self.expect(image.prompt)

    def run(self, image: Image, command: str) -> str:
        """Return a command's output."""
        self.send(f"{command}; echo $((6 * 7))-end")
        return self.expect("42-end\r\n").replace("\r", "").rsplit("-end\n", 1)[-1]

    def wait(self) -> int:
        return self._process.wait(timeout=LIMIT)


@contextmanager
def booted(image: Image, *arguments: str) -> Iterator[Console]:
    command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-m", "256"]
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append]
    command += ["-serial", "stdio", "-no-reboot", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        try:
            yield Console(process)
        finally:
            process.kill()


def test_usual_machine(tiny: Image) -> None:
    devices = [
        "virtio-serial-pci",
        "virtserialport,chardev=port,name=org.pytest-kvm.control",
        "virtio-balloon-pci",
        "virtio-rng-pci",
        "pvpanic-pci",
        "vmgenid,guid=auto",
        "pcie-root-port,id=port0",
        "virtio-net-pci,netdev=net0",
    ]
    arguments = [word for device in devices for word in ("-device", device)]
    arguments += ["-chardev", "null,id=port", "-netdev", "user,id=net0"]
    with booted(tiny, "-M", "q35", *arguments) as console:
        console.login(tiny)
        loaded = console.run(tiny, "lsmod | cut -d' ' -f1")
        for name in ("virtio_net", "virtio_balloon", "virtio_rng", "pvpanic_pci", "button", "evdev"):
            assert name in loaded.split()
        assert "ahci" not in loaded.split(), "nothing is attached to it"
        assert "10.0.2.15" in console.run(tiny, "ifconfig eth0")
        assert "nameserver 10.0.2.3" in console.run(tiny, "cat /etc/resolv.conf")
        assert "10.0.2.2" in console.run(tiny, "ip route")
        assert "org.pytest-kvm.control" in console.run(tiny, "cat /sys/class/virtio-ports/*/name")
        assert ":22 " in console.run(tiny, "netstat -ltn")
        mounts = console.run(tiny, "cut -d' ' -f2 /proc/mounts").split()
        assert {"/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/tmp", "/run", "/sys/fs/cgroup"} <= set(mounts)
        console.send("/sbin/poweroff")
        assert console.wait() == 0


def test_disks_of_every_kind(tiny: Image, tmp_path: Path) -> None:
    arguments: list[str] = []
    kinds = {
        "virtio-blk-pci": [],
        "ide-hd": [],
        "scsi-hd,bus=scsi.0": ["-device", "virtio-scsi-pci,id=scsi"],
        "nvme,serial=nvme": [],
        "usb-storage": ["-device", "qemu-xhci"],
    }
    for number, (device, controller) in enumerate(kinds.items()):
        disk = tmp_path / f"disk{number}"
        disk.write_bytes(bytes(1 << 20))
        arguments += ["-drive", f"file={disk},format=raw,if=none,id=d{number}"]
        arguments += [*controller, "-device", f"{device},drive=d{number}"]
    with booted(tiny, "-M", "q35", *arguments) as console:
        console.login(tiny)
        disks = console.run(tiny, "ls /sys/block").split()
        assert {"vda", "nvme0n1"} <= set(disks)
        assert len([name for name in disks if name.startswith("sd")]) == 3
        console.send("reboot")
        assert console.wait() == 0


def test_bare_machine(tiny: Image) -> None:
    with booted(tiny, "-M", "pc") as console:
        console.login(tiny)
        assert console.run(tiny, "ls /sys/class/net").split() == ["lo"]
        console.send("poweroff")
        assert console.wait() == 0


def test_no_dhcp_server(tiny: Image) -> None:
    with booted(tiny, "-M", "q35", "-netdev", "hubport,hubid=0,id=n", "-device", "e1000,netdev=n") as console:
        console.login(tiny)
        shown = console.run(tiny, "ip address show dev eth0")
        assert ",UP" in shown
        assert "inet 10." not in shown
