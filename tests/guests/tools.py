"""What makers of guests share: running the host's tools, and a disk that SeaBIOS boots."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

MIB = 1 << 20


class MissingTool(Exception):
    """A program that a maker needs is not here; the text names its package."""


def run(package: str, *command: str | Path) -> None:
    """Run a program of a Debian package.

    Raises MissingTool if it is not here, RuntimeError with what it said if it fails.
    """
    words = [str(word) for word in command]
    # Users other than root do not have the directories of mkfs and the like in theirs.
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        subprocess.run(
            words,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    except FileNotFoundError:
        raise MissingTool(f"{words[0]} is not installed (package {package})") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{error}\n{error.stdout.decode(errors='replace')}") from None


def boot_volume(path: Path, files: Mapping[str, Path], configuration: str, *, hidden: int = 0) -> None:
    """Make a FAT file system that boots: ``files`` by their names in it, ``configuration`` for syslinux.

    A disk with nothing but it is bootable, and so is an active partition with it, which has ``hidden`` sectors before.
    """
    size = sum(file.stat().st_size for file in files.values()) + 2 * MIB
    settings = path.with_suffix(".cfg")
    settings.write_text(configuration)
    path.unlink(missing_ok=True)
    run("dosfstools", "mkfs.fat", "-C", "-F", "16", "-h", str(hidden), "-n", "BOOT", path, str(-(-size // MIB) * 1024))
    for name, file in {**files, "syslinux.cfg": settings}.items():
        run("mtools", "mcopy", "-i", path, file, f"::{name}")
    run("syslinux", "syslinux", "--install", path)
    settings.unlink()
