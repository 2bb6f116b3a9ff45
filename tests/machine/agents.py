"""The built-in guest with QEMU's guest agent in it: this host's own, with its libraries."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

from pytest_kvm.images import builtin
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.spec.image import Image
from tests.guest.agent.agents import program

# As udev and systemd would: it is started when its port is there, and again when it has ended.
START = """#!/bin/sh
find_port() {
	for dir in /sys/class/virtio-ports/*; do
		read -r name <"$dir/name" || continue
		node=/dev/${dir##*/}
		[ "$name" = org.qemu.guest_agent.0 ] && [ -c "$node" ] && return
	done
	return 1
}
until find_port 2>/dev/null; do usleep 10000; done
cd /
echo $$ >/run/qemu-ga.pid
exec /opt/ga/LOADER --library-path /opt/ga /opt/ga/qemu-ga -p "$node" -t /run 2>/run/qemu-ga.log
"""
# What serves our shell looks for its ports for as long as it takes.
SHELL = re.compile(r"^.*/lib/kvm/(control|resumer)\n", re.MULTILINE)


def image_with_agent(folder: Path, *, shell: bool) -> Image:
    """Return the built-in guest with the agent, and with or without our shell; its initramfs is made in ``folder``."""
    tiny = tiny_image()
    assert tiny.initrd is not None
    added = Initramfs()
    said = subprocess.run(["ldd", program()], capture_output=True, text=True, check=True).stdout
    # Libraries of one host belong together: the guest's own may be those of another release.
    libraries = [Path(name) for name in re.findall(r"(/\S+) \(0x", said)]
    for file in (program(), *libraries):
        added.file(f"/opt/ga/{file.name}", file.read_bytes(), 0o755)
    loader = next(file.name for file in libraries if file.name.startswith("ld-"))
    added.file("/opt/ga/start", START.replace("LOADER", loader).encode(), 0o755)
    inittab = (Path(builtin.__file__).parent / "rootfs/etc/inittab").read_text()
    added.file("/etc/inittab", f"{inittab if shell else SHELL.sub('', inittab)}::respawn:/opt/ga/start\n".encode())
    # A later archive's files replace an earlier one's (Documentation/driver-api/early-userspace/buffer-format.rst).
    first = Path(tiny.initrd).read_bytes()
    initrd = folder / "initrd.img"
    initrd.write_bytes(first + bytes(-len(first) % 4) + added.to_bytes())
    ways = {"ssh_user": None, "ssh_key": None, "ssh_host_key": None, "agent": True, "ready": "agent"}
    return replace(tiny, initrd=initrd, shell=shell, **ways)  # type: ignore[arg-type]  # mypy knows no types of these
