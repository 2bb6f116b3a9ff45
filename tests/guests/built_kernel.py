"""A kernel built from Debian's sources, with tests of KUnit and counters of gcov, and some of its selftests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.guests.tools import MissingTool, run

HERE = Path(__file__).parent
CONFIG = HERE / "kernel.config"
MODULES = HERE / "kunit"
# What is counted: few files, which nothing runs but who wants to.
COUNTED = "ipc"
SELFTESTS = "size timers sync"
# Tools by the packages that have them.
_TOOLS = {
    **{name: name for name in ("apt", "bc", "binutils", "bison", "dpkg", "flex", "gcc", "make", "rsync", "xz-utils")},
    **{"apt": "apt-get", "binutils": "ld", "dpkg": "dpkg-deb", "xz-utils": "xz"},
}
# What only further building needs.
_NEEDLESS = (".o", ".a", ".cmd", ".symvers", ".mod.c")


def make_tree(folder: Path) -> Path:
    """Build it below a folder; return the build tree. Takes minutes. Raises MissingTool."""
    missing = [package for package, tool in _TOOLS.items() if shutil.which(tool) is None]
    if not Path("/usr/include/gelf.h").exists():
        missing.append("libelf-dev")
    if missing:
        raise MissingTool(f"building a kernel takes the packages {' '.join(missing)}")
    folder.mkdir(parents=True)
    tree = folder / "linux"
    _unpack(folder, tree)
    makefile = tree / COUNTED / "Makefile"
    makefile.write_text(f"GCOV_PROFILE := y\n{makefile.read_text()}")
    shutil.copytree(MODULES, folder / "kunit")
    make = ("nice", "make", "-s", "-C", tree)
    run("make", *make, "tinyconfig")
    with (tree / ".config").open("a") as file:
        file.write(CONFIG.read_text())
    run("make", *make, "olddefconfig")
    run("make", *make, f"-j{os.cpu_count() or 1}", "bzImage", "modules")
    run("make", *make, f"M={folder / 'kunit'}", "modules")
    run("make", *make, "-C", "tools/testing/selftests", f"TARGETS={SELFTESTS}", "install")
    for path in tree.rglob("*"):
        if path.name.endswith(_NEEDLESS) and path.is_file() and "kselftest_install" not in path.parts:
            path.unlink()
    return tree


def _unpack(folder: Path, tree: Path) -> None:
    name = _newest()
    run("apt", "sh", "-c", f"cd '{folder}' && apt-get download -q {name}")
    (package,) = folder.glob("*.deb")
    tree.mkdir()
    archive = folder / "source.tar.xz"
    run("dpkg", "dpkg-deb", "-x", package, folder / "package")
    (found,) = (folder / "package").glob("usr/src/linux-source-*.tar.xz")
    found.rename(archive)
    run("tar", "tar", "-x", "-f", archive, "-C", tree, "--strip-components=1")
    shutil.rmtree(folder / "package")
    package.unlink()
    archive.unlink()


def _newest() -> str:
    done = subprocess.run(["apt-cache", "depends", "linux-source"], check=True, capture_output=True, text=True)
    match = re.search(r"Depends: (linux-source-\S+)", done.stdout)
    if match is None:
        raise MissingTool("apt has no linux-source")
    return match[1]
