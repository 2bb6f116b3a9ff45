"""The built-in guests that are in the cache: those of today's packages, and those they have superseded."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.images.builtin.recipe import recipe_for
from pytest_kvm.images.builtin.tiny import cached_directory

_INFO = "info.json"


@dataclass(frozen=True)
class Built:
    """A guest in the cache: ``name`` is ``tiny:SUITE``, ``size`` is in bytes, ``time`` when it was made (since 1970).

    ``current`` says whether it is the one that ``image=`` means now; the others were made of older packages.
    """

    name: str
    path: Path
    release: str
    size: int
    time: float
    current: bool


def built_guests(cache: Path) -> list[Built]:
    """Return the guests in the cache, by name, the newest first. Raises OSError."""
    found = []
    for info in (cache / "images").glob(f"*/{_INFO}"):
        folder = info.parent
        try:
            about = json.loads(info.read_text(encoding="utf-8"))
            name, release = f"tiny:{about['suite']}", str(about["kernel_release"])
        except (OSError, ValueError, KeyError):
            name, release = folder.name, "?"
        size = sum(path.stat().st_size for path in folder.iterdir())
        current = cached_directory(cache, name.partition(":")[2]) == folder
        found.append(Built(name, folder, release, size, info.stat().st_mtime, current))
    return sorted(found, key=lambda guest: (guest.name, not guest.current, -guest.time))


def is_built(name: str) -> bool:
    """Return whether an image of this name is the built-in guest."""
    return name == "tiny" or name.startswith("tiny:")


def full_name(name: str) -> str:
    """Return the name with its suite: ``tiny`` is the default suite's. Raises ImageUnavailable."""
    return recipe_for(name.partition(":")[2] or None, archive=None, keyring=None).name


def remove_built(guest: Built) -> int:
    """Remove a guest; return how many bytes that were. Machines that run have read their files. Raises OSError."""
    shutil.rmtree(guest.path)
    return guest.size
