"""Another kernel than the built-in guest's, as somebody would have it: what was installed of it, and a build tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pytest_kvm.images.builtin.deb import members
from tests.guests.tools import MissingTool

# Debian 12's, for clouds: small, with modules of its own.
_META = "linux-image-cloud-amd64"


def make_installed(folder: Path) -> Path:
    """Install a kernel's package below a folder, as ``make install modules_install`` would; return the folder."""
    if shutil.which("apt-get") is None:
        raise MissingTool("apt-get is not installed")
    folder.mkdir(parents=True)
    name = _newest()
    subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    installed = folder / "installed"
    for member in members(package, lambda path: path.startswith(("boot/", "usr/lib/modules/", "lib/modules/"))):
        if member.target is None:
            path = installed / member.path.removeprefix("usr/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.data)
    package.unlink()
    return installed


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
