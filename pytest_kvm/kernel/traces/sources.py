"""The files with the debug information of a kernel and of its modules."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import elf
from pytest_kvm.images.builtin.modules import decompress, module_name
from pytest_kvm.images.kernels.banner import Banner, read_banner
from pytest_kvm.images.kernels.source import LIBRARIES, Kernel, debuggable, release_of

# Below a root: what distributions have in packages of their own.
_DEBUG = ("usr/lib/debug/lib/modules", "usr/lib/debug/usr/lib/modules")
# GNU's note with the build ID: three words, "GNU", and the ID.
_NOTE, _NOTE_HEADER = ".note.gnu.build-id", 16
_SECTIONS = (".debug_info", ".zdebug_info")


def vmlinux_of(kernel: Kernel, given: Sequence[Path], notes: list[str]) -> Path | None:
    """Return the file with the debug information of this very kernel, None if there is none.

    ``given`` are files that the user names, for any kernel. If there is only that of another build, a note says so.
    """
    others = []
    for path in [*given, *debuggable(kernel)]:
        with contextlib.suppress(OSError, ValueError):  # it cannot be read, or is no ELF file
            banner = read_banner(path)
            if banner is None or not has_debug(path):
                continue
            if banner == Banner(kernel.release, kernel.version):
                return path
            others.append(f"{path} is another build, {banner.release} {banner.version}: not {kernel.version}")
    notes += others[:1]
    return None


def has_debug(path: Path) -> bool:
    """Return whether a file has debug information; raises OSError, and ValueError for what is no such file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return elf.has_section(content, *_SECTIONS)


def modules_of(kernel: Kernel, vmlinux: Path | None, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files that may have the debug information of a kernel's modules, the likeliest of each first."""
    release = kernel.release
    roots = [folder / place / release for folder in (*kernel.folders, Path("/")) for place in _DEBUG]
    for folder in vmlinux.parents[:6] if vmlinux is not None else ():
        roots += [folder / place / release for place in (*_DEBUG, *LIBRARIES)]
        if release_of(folder) == release:
            roots.append(folder)
    if kernel.tree is not None:
        roots.append(kernel.tree)
    if kernel.modules is not None:
        roots.append(kernel.modules.root)
    seen = set()
    for root in roots:
        place = root.resolve()
        if place not in seen:
            seen.add(place)
            yield from _below(place, names)


def _below(root: Path, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each != ".git"]
        for file in files:
            if ".ko" in file and module_name(file) in names:
                yield module_name(file), Path(folder, file)


def unpacked(path: Path, folder: Path) -> Path:
    """Return a module's file that is not compressed, made in a folder if need be; raises OSError, ValueError."""
    if path.name.endswith((".ko", ".debug")):
        return path
    try:
        content = decompress(path.name, path.read_bytes())
    except ImageUnavailable as error:
        raise ValueError(str(error)) from error
    plain = folder / path.name.rpartition(".")[0]
    plain.write_bytes(content)
    return plain


def build_id(path: Path) -> str:
    """Return a file's build ID, "" if it has none; raises OSError, ValueError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return elf.section(content, _NOTE)[_NOTE_HEADER:].hex()
