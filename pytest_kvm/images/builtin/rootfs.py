"""Put the built-in guest together: a kernel and an initramfs, out of packages and our scripts."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import elf
from pytest_kvm.images.builtin.deb import members
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.modules import module_name, select
from pytest_kvm.images.builtin.programs import programs
from pytest_kvm.images.keys import Keys

_HERE = Path(__file__).parent
_BUSYBOX = "usr/bin/busybox"
_DROPBEAR = "usr/sbin/dropbear"
_LINKER = "ld-linux-x86-64.so.2"
# Beside what dropbear needs, so that a test's own dynamically linked program finds the C library complete.
_C_LIBRARY = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")


@dataclass(frozen=True)
class Guest:
    """The contents of the built-in guest's two files, the kernel's release, and which modules it lacks."""

    kernel: bytes
    initrd: bytes
    release: str
    missing_modules: tuple[str, ...]


def scripts() -> dict[str, bytes]:
    """Return the files that we put into the guest, by their path in it."""
    root = _HERE / "rootfs"
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return files | programs()


def module_names() -> list[str]:
    """Return the names of the modules that the guest shall have."""
    lines = (_HERE / "guest-modules.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@functools.cache
def recipe_digest() -> str:
    """Return a hash over all of ours that decides what a guest becomes: scripts, module list, this code."""
    digest = hashlib.sha256()
    for name in ("guest-modules.txt", "rootfs.py", "modules.py", "initramfs.py", "elf.py"):
        digest.update((_HERE / name).read_bytes())
    for path, content in scripts().items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def assemble(kernel: Sequence[Path], userland: Sequence[Path], keys: Keys, scratch: Path) -> Guest:
    """Return the guest made of a kernel's packages, the userland's packages, our scripts and the keys.

    ``scratch`` is a directory with room for some 400 MB for a while. Raises ImageUnavailable if a package
    lacks something, OSError if the disk is full.
    """
    try:
        return _assembled(kernel, userland, keys, scratch)
    except ValueError as error:  # a name that leads out of the guest, a program that is none
        raise ImageUnavailable(f"the packages of the built-in guest are damaged: {error}") from error


def _assembled(kernel: Sequence[Path], userland: Sequence[Path], keys: Keys, scratch: Path) -> Guest:
    tree = Initramfs()
    for directory in ("dev", "proc", "sys", "run", "mnt", "bin", "sbin", "usr/bin", "usr/sbin", "var/log"):
        tree.directory(directory)
    tree.directory("tmp", 0o1777)
    tree.symlink("var/run", "/run")
    # The kernel opens it for init before devtmpfs is mounted.
    tree.character_device("dev/console", 5, 1)
    _add_userland(tree, userland)
    for path, content in scripts().items():
        tree.file(path, content, 0o755 if content.startswith((b"#!", b"\x7fELF")) else 0o644)
    for verb in ("poweroff", "reboot", "halt"):
        tree.symlink(f"sbin/{verb}", "/lib/kvm/power")
    tree.directory("root", 0o700)
    tree.directory("root/.ssh", 0o700)
    tree.file("root/.ssh/authorized_keys", f"{keys.client_public}\n".encode(), 0o600)
    tree.file("etc/dropbear/dropbear_ed25519_host_key", keys.host_dropbear.read_bytes(), 0o600)
    image, release, missing = _add_kernel(tree, kernel, scratch)
    return Guest(image, tree.to_bytes(), release, missing)


def _add_userland(tree: Initramfs, packages: Sequence[Path]) -> None:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    library = re.compile(r"usr/lib(64|/x86_64-linux-gnu)?/[^/]+\.so[^/]*")
    for package in packages:
        for member in members(
            package, lambda path: path in {_BUSYBOX, _DROPBEAR} or library.fullmatch(path) is not None
        ):
            name = PurePosixPath(member.path).name
            if member.target is None:
                files[name] = member.data
            elif name not in files:
                links[name] = PurePosixPath(member.target).name
    for program, place in (("busybox", "bin/busybox"), ("dropbear", "usr/sbin/dropbear")):
        if program not in files:
            raise ImageUnavailable(f"the packages of the built-in guest do not hold {program}")
        tree.file(place, files[program], 0o755)
    for name in ("bin/sh", "init"):
        tree.symlink(name, "/bin/busybox")
    waiting = [*elf.needed(files["dropbear"]), *_C_LIBRARY]
    done: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        target, passed = name, set[str]()
        while target not in files and target in links and target not in passed:
            passed.add(target)
            target = links[target]
        if target not in files:
            raise ImageUnavailable(f"the packages of the built-in guest do not hold the library {name}")
        place = "lib64" if name == _LINKER else "lib/x86_64-linux-gnu"
        tree.file(f"{place}/{name}", files[target], 0o755)
        waiting += elf.needed(files[target])


def _add_kernel(tree: Initramfs, packages: Sequence[Path], scratch: Path) -> tuple[bytes, str, tuple[str, ...]]:
    """Add the modules, and return the kernel, its release, and which modules it does not have."""
    image, release = b"", ""
    builtin: list[str] = []
    available: dict[str, str] = {}
    places: dict[str, tuple[int, int]] = {}
    wanted = re.compile(r"boot/vmlinuz-.*|usr/lib/modules/[^/]+/(vmlinuz|modules\.builtin|kernel/.*\.ko(\.\w+)?)")
    # Which modules are needed is known only when all were seen: up to 350 MB wait in a file without a name.
    with tempfile.TemporaryFile(dir=scratch) as spool:
        for package in packages:
            for member in members(package, lambda path: wanted.fullmatch(path) is not None):
                if member.path.startswith("boot/"):
                    image, release = member.data, member.path.removeprefix("boot/vmlinuz-")
                    continue
                directory, path = member.path.removeprefix("usr/lib/modules/").split("/", 1)
                if path == "vmlinuz":  # where newer packages have it
                    image, release = member.data, directory
                elif path == "modules.builtin":
                    builtin = [module_name(line) for line in member.data.decode().splitlines()]
                else:
                    available[module_name(path)] = path
                    places[path] = (spool.tell(), len(member.data))
                    spool.write(member.data)

        def read(path: str) -> bytes:
            start, size = places[path]
            spool.seek(start)
            return spool.read(size)

        if not image or not available:
            what = "modules" if image else "kernel (boot/vmlinuz-*)"
            names = ", ".join(package.name for package in packages)
            raise ImageUnavailable(f"the packages of the built-in guest's kernel hold no {what}: {names}")
        chosen = select(module_names(), available, read, builtin)
    base = f"lib/modules/{release}"
    for path, content in chosen.files.items():
        tree.file(f"{base}/{path}", content)
    for name, text in chosen.tables.items():
        tree.file(f"{base}/{name}", text.encode())
    return image, release, chosen.missing
