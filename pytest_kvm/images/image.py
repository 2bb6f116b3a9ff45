"""What an image is: the files that a machine boots from, and how to get into the guest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Image:
    """A bootable guest.

    ``kernel`` and ``initrd`` are booted directly; ``disk`` (of ``disk_format``) is the first disk, never written.
    ``append`` is the kernel command line that the image needs. ``shell`` says that the guest serves commands on
    our virtio-serial ports; ``user`` is as whom they run. ``ssh_key`` is the private key that the guest's SSH server
    accepts for ``ssh_user``, ``ssh_host_key`` the public key (``ssh-ed25519 AAAA…``) by which it is known.
    ``login`` and ``password`` open a console session, which then shows ``prompt`` (a regular expression).
    ``ready`` is the default of the marker's field. ``resume`` are commands that each clone of a booted machine runs
    before it is handed out, such as those that make a machine-id of its own; without our shell they also have to set
    the clock (``{now}`` in them is the time in seconds since 1970) and feed the random number generator.
    """

    name: str
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    disk: Path | None = None
    disk_format: str | None = None
    shell: bool = False
    user: str = "root"
    ssh_user: str | None = None
    ssh_key: Path | None = None
    ssh_host_key: str | None = None
    login: str | None = None
    password: str | None = None
    prompt: str = r"[$#] "
    ready: str = "none"
    resume: tuple[str, ...] = ()
