"""A kernel that somebody has: a file, a build tree, or what was installed of one; with its modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.files import why_unreadable
from pytest_kvm.images.builtin.modules import module_name
from pytest_kvm.images.kernels.banner import read_banner

# What kbuild leaves in a tree: the release, and what can be booted, the smaller first.
_RELEASE = Path("include/config/kernel.release")
_IMAGES = ("arch/x86/boot/bzImage", "arch/x86_64/boot/bzImage", "vmlinux")
# What is installed: "make install INSTALL_PATH=DIR", and packages.
_INSTALLED = ("vmlinuz*", "bzImage*", "boot/vmlinuz*", "boot/bzImage*", "vmlinux")
LIBRARIES = ("lib/modules", "usr/lib/modules")
# Where the kernel with its debug information can be: beside it, in packages of Debian, Fedora, openSUSE and others.
_DEBUGGABLE = (
    *(
        "vmlinux",
        "vmlinux-{}",
        "boot/vmlinux-{}",
        "usr/lib/debug/boot/vmlinux-{}",
        "usr/lib/debug/boot/vmlinux-{}.debug",
    ),
    *(f"{place}/{{}}/vmlinux" for library in LIBRARIES for place in (f"usr/lib/debug/{library}", library)),
    *(f"{library}/{{}}/build/vmlinux" for library in LIBRARIES),
)


@dataclass(frozen=True)
class Modules:
    """Modules below a ``root``, a build tree or ``/lib/modules/RELEASE``."""

    root: Path

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """The modules' paths below the root, by the names that the kernel has for them."""
        return {module_name(path): path for path in sorted(self._listed())}

    @cached_property
    def builtin(self) -> frozenset[str] | None:
        """The names of those that the kernel has in itself; None when there is no list of them."""
        try:
            lines = (self.root / "modules.builtin").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        return frozenset(module_name(line) for line in lines if line)

    def read(self, path: str) -> bytes:
        """Return a module's file; raises OSError."""
        return (self.root / path).read_bytes()

    def _listed(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.root):
            base = os.path.relpath(folder, self.root)
            # Beside its sources, a tree has what was installed of it, or of another one.
            elsewhere = ("modules",) if base == "lib" else (".git", "debian")
            folders[:] = [name for name in folders if name not in elsewhere]
            yield from (os.path.normpath(os.path.join(base, name)) for name in names if _is_module(name))


def _is_module(name: str) -> bool:
    return name.endswith((".ko", ".ko.xz", ".ko.gz", ".ko.zst"))


@dataclass(frozen=True)
class Kernel:
    """What QEMU boots (``file``), and what is known about it.

    ``release`` and ``version`` are those of uname(1), empty for a file that is no Linux. ``modules`` are None when
    there are none to be found. ``config`` reads its configuration, ``initrd`` is an initramfs that has its
    modules, ``more`` fetches all of them where they are not at hand. ``folders`` are those in which other things of it
    can be, ``tree`` that in which it was built, if it is one of them.
    """

    file: Path
    release: str = ""
    version: str = ""
    modules: Modules | None = None
    config: Callable[[], str] | None = field(default=None, compare=False)
    initrd: Path | None = None
    more: Callable[[], Modules | None] | None = field(default=None, compare=False)
    folders: tuple[Path, ...] = field(default=(), compare=False)
    tree: Path | None = None

    @property
    def label(self) -> str:
        """The release with the number of the build, ``6.12.0-rc1-5``, or the file's name."""
        number = self.version.removeprefix("#").partition(" ")[0]
        return f"{self.release}-{number}" if self.release and number.isdigit() else self.release or self.file.name


def find_kernel(given: Path) -> Kernel:
    """Return the kernel that a file, a build tree, or the folder of an installation is.

    Raises SpecError when it cannot be read, or no kernel, or several, are in the folder.
    """
    file = _in_folder(given) if given.is_dir() else given
    why = why_unreadable(file)
    if why is not None:
        raise SpecError(f"vm(kernel={str(given)!r}): {why}", keyword="kernel", value=given)
    banner = read_banner(file)
    if banner is None:
        return Kernel(file)
    folders = [given] if given.is_dir() else folders_around(file)
    tree = next((folder for folder in folders if release_of(folder) == banner.release), None)
    library = _library(folders, banner.release)
    modules = tree if library is None else library
    return Kernel(
        file,
        banner.release,
        banner.version,
        Modules(modules) if modules is not None else None,
        _config(folders, tree, library, banner.release),
        folders=tuple(folders),
        tree=tree,
    )


def folders_around(file: Path) -> list[Path]:
    """Return the folders in which other things of a kernel's file can be: its own, and those up to a build tree's."""
    return [*file.absolute().parents[:4]]


def debuggable(kernel: Kernel) -> Iterator[Path]:
    """Yield the files that are there and may be the kernel with its debug information, or another one with its own."""
    names = [*kernel.folders, Path("/")]
    places = [kernel.file, *(folder / name.format(kernel.release) for folder in names for name in _DEBUGGABLE)]
    seen = set()
    for place in places:
        file = place.resolve()
        if file not in seen and file.is_file():
            seen.add(file)
            yield file


def _in_folder(folder: Path) -> Path:
    if release_of(folder):
        for name in _IMAGES:
            if (folder / name).is_file():
                return folder / name
        raise SpecError(
            f"vm(kernel={str(folder)!r}): this build tree has no {_IMAGES[0]} and no {_IMAGES[-1]}; run make in it",
            keyword="kernel",
            value=folder,
        )
    found = sorted({path.resolve() for pattern in _INSTALLED for path in folder.glob(pattern) if path.is_file()})
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        what = f"{len(found)} kernels are in it ({names})" if found else "no kernel is in it"
        raise SpecError(
            f"vm(kernel={str(folder)!r}): {what}; name a build tree, or the file", keyword="kernel", value=folder
        )
    return found[0]


def release_of(tree: Path) -> str:
    """Return the release of what was built in a tree, "" if it is no build tree."""
    try:
        return (tree / _RELEASE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _library(folders: list[Path], release: str) -> Path | None:
    """Return where ``make modules_install`` or a package has put the modules of a release."""
    for folder in folders:
        for name in LIBRARIES:
            if (folder / name / release).is_dir():
                return folder / name / release
    return None


def _config(folders: list[Path], tree: Path | None, library: Path | None, release: str) -> Callable[[], str] | None:
    names = [folder / place for folder in folders for place in (f"config-{release}", f"boot/config-{release}")]
    names += [tree / ".config"] if tree is not None else []
    names += [library / "config"] if library is not None else []
    return next((name.read_text for name in names if name.is_file()), None)
