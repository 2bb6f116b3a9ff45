"""Where things that outlive a session are kept."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_kvm.errors import HostError

CACHE_VARIABLE = "PYTEST_KVM_CACHE"


def cache_dir() -> Path:
    """Return the cache directory, created with mode 0700 when it is missing.

    It is ``$PYTEST_KVM_CACHE``, else ``pytest-kvm`` in the user's cache directory (``$XDG_CACHE_HOME``).
    Raises HostError when it cannot be made.
    """
    path = _named() or _usual()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot make the cache directory {path}: {error.strerror}",
            hint=f"set {CACHE_VARIABLE} to a directory that you may write",
        ) from error
    return path


def is_cache(path: Path) -> bool:
    """Return whether an absolute path is the directory that ``$PYTEST_KVM_CACHE`` names."""
    return path == _named()


def _named() -> Path | None:
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else None


def _usual() -> Path:
    import platformdirs  # sessions without a machine do without

    return platformdirs.user_cache_path("pytest-kvm")
