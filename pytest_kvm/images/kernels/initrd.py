"""The built-in guest's userland on top of another kernel: its initramfs, with that one's modules."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.files import write_atomically
from pytest_kvm.images.builtin.initramfs import Initramfs
from pytest_kvm.images.builtin.modules import select
from pytest_kvm.images.builtin.rootfs import module_names
from pytest_kvm.images.kernels.source import Kernel, Modules

_MODULES = "lib/modules/"
_HEADER = 110  # bytes of a newc header, of which each field has eight
_END = "TRAILER!!!"
# Without these nothing in the guest speaks to us.
_NEEDED = ("virtio_pci", "virtio_console")
# Seconds after which nobody uses an initramfs any more.
_UNUSED = 30 * 86400.0
_FORMAT = "1"


def fitted(initrd: Path, kernel: Kernel, cache: Path) -> Path:
    """Return the initramfs of the built-in guest with the modules of a kernel, made now if the cache does not have it.

    Raises SpecError for a kernel that lacks what the guest needs, ImageUnavailable when its modules cannot be read, or
    the disk is full.
    """
    modules = kernel.modules
    folder = cache / "initrds"
    made = folder / f"{_digest(initrd, kernel.release, modules)}.img"
    try:
        if made.exists():
            os.utime(made)
            return made
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.stat().st_mtime < time.time() - _UNUSED:
                path.unlink(missing_ok=True)
        archive = b"".join([*_without_modules(initrd.read_bytes()), _archive(kernel.release, modules)])
        write_atomically(made, archive, mode=0o600)  # the guest's host key is in it
    except OSError as error:
        raise ImageUnavailable(
            f"the built-in guest cannot be put on top of kernel {kernel.release}: {error}",
            hint="set PYTEST_KVM_CACHE to a directory that you may write, with room",
        ) from error
    return made


def _archive(release: str, modules: Modules | None) -> bytes:
    """Return an archive of the modules; the kernel unpacks one after the other."""
    tree = Initramfs()
    if modules is not None:
        chosen = select(module_names(), modules.paths, modules.read, modules.builtin or ())
        lacking = [name for name in _NEEDED if name in chosen.missing]
        if lacking and modules.builtin is not None:
            raise SpecError(
                f"kernel {release} has no {' and no '.join(lacking)}, neither built in nor as a module in"
                f" {modules.root}: the built-in guest cannot be reached on it",
                keyword="kernel",
            )
        for path, content in chosen.files.items():
            tree.file(f"{_MODULES}{release}/{path}", content)
        for name, text in chosen.tables.items():
            tree.file(f"{_MODULES}{release}/{name}", text.encode())
    return tree.to_bytes()


def _without_modules(archive: bytes) -> Iterator[bytes]:
    """Yield the members of a newc archive but for the modules in it."""
    at = 0
    while True:
        size, name_size = (int(archive[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in (6, 11))
        name = archive[at + _HEADER : at + _HEADER + name_size - 1].decode()
        data = at + (_HEADER + name_size + 3 & ~3)
        end = data + (size + 3 & ~3)
        if name == _END:
            yield archive[at:end]
            return
        if not name.startswith(_MODULES):
            yield archive[at:end]
        at = end


def _digest(initrd: Path, release: str, modules: Modules | None) -> str:
    """Return what is the same as long as the guest and the modules are."""
    digest = hashlib.sha256(f"{_FORMAT}\0{initrd.parent.name}\0{release}\0".encode())
    if modules is not None:
        digest.update(f"{modules.root}\0{sorted(modules.builtin or ())}\0".encode())
        for path in modules.paths.values():
            status = (modules.root / path).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
