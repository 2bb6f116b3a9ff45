"""What holds for every machine of a session, whatever its marker says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A session's choices, from options and ini.

    ``qemu`` is a path or name of the QEMU binary (None: look for one), ``offline`` forbids downloads, ``archive`` is
    the package archive that the built-in guest is made from (None: apt's own), ``keyring`` what verifies it.
    """

    qemu: str | None = None
    offline: bool = False
    archive: str | None = None
    keyring: str | None = None
