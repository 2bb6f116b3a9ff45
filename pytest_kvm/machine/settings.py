"""What holds for every machine of a session, whatever its marker says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_kvm.host.amounts import Limits, default_limits
from pytest_kvm.spec.image import Image

DEFAULT_TEMPLATE_LIMIT = 4 << 30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A session's choices, from options and ini.

    ``qemu`` is a path or name of the QEMU binary (None: look for one), ``offline`` forbids downloads, ``archive`` is
    the package archive that the built-in guest is made from (None: apt's own), ``keyring`` what verifies it.
    ``images`` are those that the user describes, by their names. ``template_limit`` is how much the templates may take
    together, in bytes. ``limits`` are what all machines of the user may take together; ``run`` is what the processes
    of one pytest run have in common ("": it has only one). ``monitor`` gives machines a second QMP monitor, for
    somebody beside us. ``vmcore`` lets kernels say where everything is, for whoever reads a dump of their memory.
    ``share`` is how folders of the host come into guests, where a share does not say it. ``vmlinux`` are files with the
    debug information of kernels that do not have theirs beside them. ``gdb_wait`` has all machines boot, and wait for
    gdb before their first instruction.
    """

    qemu: str | None = None
    offline: bool = False
    archive: str | None = None
    keyring: str | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    template_limit: int = DEFAULT_TEMPLATE_LIMIT
    limits: Limits = field(default_factory=default_limits)
    run: str = ""
    monitor: bool = False
    vmcore: bool = False
    share: str = "auto"
    vmlinux: Sequence[Path] = ()
    gdb_wait: bool = False
