"""A cache directory without templates, beside the one that the tests share."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.host.cache import cache_dir


def own_cache(folder: Path) -> Path:
    """Make a cache directory in ``folder`` that has all of the shared one's but its templates."""
    made = folder / "cache"
    made.mkdir(mode=0o700)
    for path in cache_dir().iterdir():
        if path.name != "templates":
            (made / path.name).symlink_to(path)
    return made
