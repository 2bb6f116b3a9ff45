"""A kernel with its debug information, as a distribution has it in a package of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.guests.tools import MissingTool

# Some modules are enough.
_WANTED = ("boot", "lib/modules/{}/kernel/drivers/net")


def make_debuggable(folder: Path, installed: Path) -> Path:
    """Lay out an installed kernel below a folder together with its debug information, and return the folder.

    Raises MissingTool when the package cannot be had.
    """
    folder.mkdir(parents=True)
    (image,) = (installed / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    name = f"linux-image-{release}-dbg"
    done = subprocess.run(["apt-get", "download", "-q", name], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingTool(f"apt does not have {name}: {done.stderr.strip()}")
    (package,) = folder.glob("*.deb")
    places = [f"./usr/lib/debug/{place.format(release)}" for place in _WANTED]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as content:
        subprocess.run(["tar", "-x", "-C", folder, *places], stdin=content.stdout, check=True)
    package.unlink()
    for part in ("boot", "lib"):
        (folder / part).symlink_to(installed / part)
    return folder
