"""What killed processes left in the cache, and what looks like it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from pytest_kvm.host.sweep import Left
from pytest_kvm.images.leftovers import sweep_cache

KILLED = """
import os, sys
from pathlib import Path
from pytest_kvm import files
files.os.replace = lambda *names: os.kill(os.getpid(), 9)
files.write_atomically(Path(sys.argv[1]), bytes(1 << 20))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def made(path: Path, *, hours: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(8192))
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def removed(cache: Path, *, dry_run: bool = False) -> list[Path]:
    return sorted(one.path for one in sweep_cache(cache, dry_run=dry_run).removed)


def test_an_empty_cache(cache: Path) -> None:
    assert removed(cache) == []
    assert not cache.exists()


def test_a_file_that_was_being_written(cache: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(cache / "host" / "qemu.json")], check=False)
    (path,) = (cache / "host").iterdir()
    assert removed(cache) == []  # it may still be written
    then = time.time() - 7200
    os.utime(path, (then, then))
    assert removed(cache, dry_run=True) == [path]
    (swept,) = sweep_cache(cache).removed
    assert (swept.path, swept.size) == (path, 1 << 20)
    assert not path.exists()


def test_what_was_meant_to_be_there(cache: Path) -> None:
    names = [
        *("images/.lock", "images/.cirros-0.6.3.lock", "templates/.0123.lock", "ssh/.lock"),
        *("images/cirros/.record.json", "images/cirros/.incoming/disk.img.partial", "host/qemu-12345678.json"),
        *("elsewhere/.file.12345678", "images/cirros/disk.12345678", "packages/12345678.deb"),
    ]
    kept = [made(cache / name, hours=100) for name in names]
    assert removed(cache) == []
    assert all(path.exists() for path in kept)


def test_a_build_of_a_guest(cache: Path) -> None:
    build, packages = cache / "images" / "building.abc", cache / "packages" / "partial.abc"
    made(build / "initrd.img")
    made(packages / "linux.deb")
    assert removed(cache, dry_run=True) == [build, packages]
    assert build.exists()
    assert removed(cache) == [build, packages]
    assert not build.exists()
    assert not packages.exists()


def test_a_build_that_goes_on(cache: Path) -> None:
    build = cache / "images" / "building.abc"
    made(build / "initrd.img")
    with filelock.FileLock(cache / "images" / ".lock"):
        swept = sweep_cache(cache)
    assert swept.removed == []
    assert swept.left == [Left(build, "a guest is being built now", used=True)]
    assert build.exists()
