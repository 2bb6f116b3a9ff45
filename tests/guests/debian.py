"""A disk image of Debian with systemd, cloud-init, OpenSSH and the guest agent, like those that Debian publishes."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.guests.tools import MIB, boot_volume, run

SUITE = "trixie"
_PACKAGES = (
    *(
        "systemd-sysv",
        "udev",
        "dbus",
        "iproute2",
        "e2fsprogs",
        "cloud-init",
        "openssh-server",
        "qemu-guest-agent",
        "sudo",
    ),
    "linux-image-cloud-amd64",
)
# An initramfs with the drivers of our machines only is packed, loaded and unpacked in a fraction of the time.
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
# Nobody waits for these in a guest that lives for a test.
_NEEDLESS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "systemd-timesyncd.service", "systemd-pcrphase.service"),
)
_BOOT = """\
DEFAULT debian
LABEL debian
  LINUX vmlinuz
  INITRD initrd.img
  APPEND root=LABEL=root rw console=tty0 console=ttyS0,115200
"""
_ROOT_MIB = 1400
# A partition begins at the second MiB: where all partitioning tools let it.
_FIRST = 2048
_SECTORS = MIB // 512
_MBR = "/usr/lib/syslinux/mbr/mbr.bin"


def make_debian(folder: Path) -> Path:
    """Make the disk image in a folder, and return its path; only root can.

    It boots by itself under SeaBIOS. Raises MissingTool.
    """
    root = folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    _install(root)
    _adapt(root)
    raw = folder / "debian.raw"
    _assemble(root, raw)
    run("coreutils", "rm", "-rf", root)
    image = folder / "debian.qcow2"
    run("qemu-utils", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    raw.unlink()
    return image


def _install(root: Path) -> None:
    settings = "etc/initramfs-tools"
    modules = "\\n".join(_MODULES)
    hook = (
        f'mkdir -p "$1/{settings}/conf.d" && echo MODULES=list >"$1/{settings}/conf.d/tests"'
        f' && printf "{modules}\\n" >"$1/{settings}/modules"'
    )
    without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    run(
        "mmdebstrap",
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"),
        *without,
        "--dpkgopt=force-unsafe-io",
        f"--essential-hook={hook}",
        f"--include={','.join(_PACKAGES)}",
        *(SUITE, root),
    )


def _adapt(root: Path) -> None:
    """Leave nothing in the tree that each machine makes of its own, and nothing that takes time for nothing."""
    (root / "etc/fstab").write_text("LABEL=root / ext4 defaults 0 1\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    # cloud-init says what is to become of the network, and leaves that to who is there for it.
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")
    for name in _NEEDLESS:
        link = root / "etc/systemd/system" / name
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _assemble(root: Path, disk: Path) -> None:
    """Make a disk of two partitions: what boots, and the root file system."""
    boot, system = disk.with_suffix(".boot"), disk.with_suffix(".root")
    files = {name: next((root / "boot").glob(f"{start}-*")) for name, start in _KERNEL.items()}
    boot_volume(boot, files, _BOOT, hidden=_FIRST)
    run("e2fsprogs", "mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, system, f"{_ROOT_MIB}M")
    sizes = [path.stat().st_size // 512 for path in (boot, system)]
    code = Path(_MBR).read_bytes().ljust(440, b"\0")
    entries = (
        _entry(_FIRST, sizes[0], kind=0x0E, active=True),
        _entry(_FIRST + sizes[0], sizes[1], kind=0x83, active=False),
    )
    disk.write_bytes(code + os.urandom(4) + bytes(2) + b"".join(entries) + bytes(32) + b"\x55\xaa")
    for file, sector in ((boot, _FIRST), (system, _FIRST + sizes[0])):
        run(
            "coreutils",
            *("dd", f"if={file}", f"of={disk}", "bs=1M", f"seek={sector // _SECTORS}", "conv=sparse,notrunc"),
        )
        file.unlink()
    os.truncate(disk, (_FIRST + sum(sizes)) * 512)


_KERNEL = {"vmlinuz": "vmlinuz", "initrd.img": "initrd.img"}


def _entry(first: int, sectors: int, *, kind: int, active: bool) -> bytes:
    """Return an entry of a partition table, for those who count sectors (UEFI specification, 5.2.1)."""
    nowhere = b"\xfe\xff\xff"  # cylinders are of no interest
    return struct.pack("<B3sB3sII", 0x80 if active else 0, nowhere, kind, nowhere, first, sectors)
