"""A disk image with CirrOS's manners, for tests where CirrOS cannot be downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_kvm.host.cache import cache_dir
from pytest_kvm.images.builtin.deb import members
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.modules import module_name, select
from pytest_kvm.images.builtin.pool import Pool
from pytest_kvm.images.builtin.programs import _elf
from pytest_kvm.images.builtin.recipe import recipe_for
from pytest_kvm.images.builtin.tiny import tiny_image
from tests.guests.cpio import regular_files
from tests.guests.tools import boot_volume

ROOTFS = Path(__file__).parent / "cirros-rootfs"

# Drivers for what CirrOS's kernel drives, and for the file systems of seeds. A kernel may have some built in.
_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio_rng", "virtio_balloon", "virtio_console"),
    *("e1000", "e1000e", "8139cp", "ne2k_pci", "pcnet32"),
    *("ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod"),
    *("isofs", "nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8"),
    *("pvpanic_pci", "vmgenid", "button", "evdev"),
)

# sudo: become root and run /lib/cirros/sudo with the same arguments, since the set-user-id bit of a script counts for
# nothing. System call numbers are those of the kernel's arch/x86/entry/syscalls/syscall_64.tbl.
_SUDO = b"".join(
    (
        b"\x31\xff\x31\xf6\xb8\x74\x00\x00\x00\x0f\x05",  # setgroups(0, NULL)
        b"\x31\xff\xb8\x6a\x00\x00\x00\x0f\x05",  # setgid(0)
        b"\x31\xff\xb8\x69\x00\x00\x00\x0f\x05",  # setuid(0)
        b"\x48\x8b\x0c\x24",  # mov rcx, [rsp]: argc
        b"\x48\x8d\x74\x24\x08",  # lea rsi, [rsp + 8]: argv
        b"\x48\x8d\x54\xcc\x10",  # lea rdx, [rsp + 8 * rcx + 16]: the environment, behind argv's end
        b"\x48\x8d\x3d\x13\x00\x00\x00",  # lea rdi, [the name below]
        b"\xb8\x3b\x00\x00\x00\x0f\x05",  # execve()
        b"\xbf\x7f\x00\x00\x00",  # mov edi, 127
        b"\xb8\x3c\x00\x00\x00\x0f\x05",  # exit()
        b"/lib/cirros/sudo\0",
    )
)

_BOOT = """\
DEFAULT cirros
LABEL cirros
  LINUX vmlinuz
  INITRD initrd.img
  APPEND console=tty1 console=ttyS0
"""


def make_cirros(folder: Path) -> Path:
    """Make the disk image in a folder, and return its path.

    It is made of the built-in guest's kernel and programs, and boots by itself under SeaBIOS. What the guest
    writes is in memory only. Raises MissingTool, and what tiny_image raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiny = tiny_image()
    if tiny.kernel is None or tiny.initrd is None:
        raise ValueError("the built-in guest has no kernel of its own")
    initrd = folder / "initrd.img"
    # Not compressed: reading 12 MB takes the BIOS no longer than an emulated kernel needs to unpack them.
    initrd.write_bytes(_tree(Path(tiny.initrd)).to_bytes())
    disk = folder / "cirros.img"
    boot_volume(disk, {"vmlinuz": Path(tiny.kernel), "initrd.img": initrd}, _BOOT)
    initrd.unlink()
    return disk


def _tree(base: Path) -> Initramfs:
    files = {file.path: file for file in regular_files(base.read_bytes())}
    tree = Initramfs()
    for directory in ("dev", "proc", "sys", "run", "mnt", "sbin", "usr/bin", "usr/sbin", "var/log", "home/cirros"):
        tree.directory(directory)
    tree.directory("tmp", 0o1777)
    tree.directory("root", 0o700)
    tree.symlink("var/run", "/run")
    # The kernel opens it for init before devtmpfs is mounted.
    tree.character_device("dev/console", 5, 1)
    for path, file in files.items():
        if path.startswith(("bin/", "lib64/", "lib/x86_64-linux-gnu/", "usr/sbin/")):
            tree.file(path, file.data, file.mode)
    for name in ("bin/sh", "init"):
        tree.symlink(name, "/bin/busybox")
    tree.file("bin/busybox", _as_terse_as_cirros(files["bin/busybox"].data), 0o755)
    # CirrOS's SSH server has the directories of system programs in its path, Debian's has these two.
    tree.symlink("usr/local/bin", "/sbin")
    tree.symlink("usr/games", "/usr/sbin")
    _add_modules(tree, {path: file.data for path, file in files.items() if path.startswith("lib/modules/")})
    for own in sorted(ROOTFS.rglob("*")):
        if own.is_file():
            content = own.read_bytes()
            tree.file(str(own.relative_to(ROOTFS)), content, 0o755 if content.startswith(b"#!") else 0o644)
    tree.file("etc/shadow", (ROOTFS / "etc/shadow").read_bytes(), 0o600)
    tree.file("lib/cirros/dhcp", files["lib/kvm/dhcp"].data, 0o755)
    tree.file("usr/bin/dropbearkey", _dropbearkey(), 0o755)
    tree.file("usr/bin/sudo", _elf(_SUDO), 0o4755)
    return tree


def _as_terse_as_cirros(busybox: bytes) -> bytes:
    """Return busybox without what its shell prints in Debian only: a welcome, and a question behind each prompt."""
    for text in (b"\n\n%s %s\nEnter 'help' for a list of built-in commands.\n\n\0", b"\x1b[6n\0"):
        busybox = busybox.replace(text, bytes(len(text)))
    return busybox


def _add_modules(tree: Initramfs, files: Mapping[str, bytes]) -> None:
    release = next(iter(files)).split("/")[2]
    base = f"lib/modules/{release}"
    available = {module_name(path): path.removeprefix(f"{base}/") for path in files if path.endswith(".ko")}
    chosen = select(_MODULES, available, lambda path: files[f"{base}/{path}"])
    for path, content in chosen.files.items():
        tree.file(f"{base}/{path}", content)
    for name, text in chosen.tables.items():
        tree.file(f"{base}/{name}", text.encode())


def _dropbearkey() -> bytes:
    """Return the program that makes host keys; the built-in guest, which brings its key, leaves it out."""
    pool = Pool(cache_dir() / "packages")
    packages = pool.remembered(recipe_for(None, archive=None, keyring=None).userland) or []
    for package in packages:
        if package.name == "dropbear-bin":
            for member in members(pool.path(package), lambda path: path == "usr/bin/dropbearkey"):
                return member.data
    raise ValueError("the built-in guest's packages hold no dropbearkey")
