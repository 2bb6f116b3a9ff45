"""Another kernel than the built-in guest's, as somebody has it: installed, a build tree, modules of one's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pytest_kvm.images.builtin.deb import members
from tests.guests.tools import MissingTool, run

# Debian 12's, for clouds: small, with modules of its own.
_META = "linux-image-cloud-amd64"
FAULTY = Path(__file__).parent / "faulty.c"
LAMP = Path(__file__).parent / "lamp.c"


def make_installed(folder: Path) -> Path:
    """Install a kernel's package below a folder, as ``make install modules_install`` would; return the folder.

    What modules are built with is there, too.
    """
    if shutil.which("apt-get") is None:
        raise MissingTool("apt-get is not installed")
    folder.mkdir(parents=True)
    name = _newest()
    release = name.removeprefix("linux-image-")
    common = f"linux-headers-{release.partition('-cloud-')[0]}-common"
    names = [name, f"linux-headers-{release}", common, f"linux-kbuild-{'.'.join(release.split('.')[:2])}"]
    subprocess.run(["apt-get", "download", "-q", *names], cwd=folder, check=True, capture_output=True)
    installed = folder / "installed"
    for package in sorted(folder.glob("*.deb")):
        if package.name.startswith(f"{name}_"):
            for member in members(package, lambda path: path.startswith(("boot/", "usr/lib/modules/", "lib/modules/"))):
                if member.target is None:
                    path = installed / member.path.removeprefix("usr/")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(member.data)
        else:
            subprocess.run(["dpkg-deb", "-x", package, installed], check=True, capture_output=True)
        package.unlink()
    for link in ("build", "source"):  # they lead to where headers would have been installed
        (installed / "lib" / "modules" / release / link).unlink(missing_ok=True)
    # Where they are is not where they would have been installed.
    (installed / "usr" / "src" / names[1] / "Makefile").write_text(f"include ../{common}/Makefile\n")
    return installed


def make_module(installed: Path, folder: Path, source: Path) -> Path:
    """Build a module for an installed kernel in a folder, with debug information; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder)
    (folder / "Makefile").write_text(f"obj-m := {source.stem}.o\n")
    (headers,) = (installed / "usr" / "src").glob("linux-headers-*-cloud-*")
    run("make", "make", "-C", headers, f"M={folder}", "CC=gcc", "modules")
    return folder / f"{source.stem}.ko"


def _newest() -> str:
    done = subprocess.run(["apt-cache", "depends", _META], check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        word = line.split()[-1]
        if word.startswith("linux-image-") and word != _META:
            return word
    raise MissingTool(f"apt has no {_META}")


def make_tree(installed: Path, tree: Path) -> Path:
    """Lay out a build tree like kbuild's around an installed kernel."""
    (image,) = (installed / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    for path, source in {
        "arch/x86/boot/bzImage": image,
        ".config": installed / "boot" / f"config-{release}",
        "modules.builtin": installed / "lib" / "modules" / release / "modules.builtin",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tree / path)
    (tree / "include" / "config").mkdir(parents=True)
    (tree / "include" / "config" / "kernel.release").write_text(f"{release}\n")
    shutil.copytree(installed / "lib" / "modules" / release / "kernel", tree, dirs_exist_ok=True)
    return tree
