"""Cache directories that lack something, beside the one that the tests share."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.host.cache import cache_dir


def own_cache(folder: Path, lacking: str = "templates") -> Path:
    """Make a cache directory in ``folder`` that has all of the shared one's but its templates, or what it lacks."""
    made = folder / "cache"
    made.mkdir(mode=0o700)
    for path in cache_dir().iterdir():
        if path.name != lacking:
            (made / path.name).symlink_to(path)
    return made
