"""What a guest is booted from, and how to get into it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.drive import FORMATS
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.size import read_memory
from pytest_kvm.spec.values import Check, boolean, one_of, optional, path, several, text
from pytest_kvm.spec.wording import Rejected, expected, expected_type, listed, shown

READY = ("shell", "ssh", "agent", "login", "none")
SEEDS = ("nocloud", "config-drive")
# Hexadecimal digits of each kind of checksum, the weakest first.
DIGESTS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
# The fields that say which ways into a guest there are.
WAYS = {"shell": "shell", "ssh": "ssh_user", "agent": "agent"}
FILES = ("disk", "kernel", "initrd", "ssh_key")

StrPath = str | os.PathLike[str]


def is_address(value: object) -> bool:
    """Return whether a disk is given by its address, rather than by a path."""
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def check_ready(value: object) -> None:
    """Accept one of READY, or a compiled pattern of text."""
    wanted = f"{listed([repr(name) for name in READY])}, or a compiled pattern"
    if isinstance(value, re.Pattern):
        if not isinstance(value.pattern, str):
            raise expected_type("a pattern of text", value.pattern)
    elif not isinstance(value, str):
        raise expected_type(wanted, value)
    elif value not in READY:
        raise Rejected(f"expected {wanted}, got {shown(value)}; for a pattern write re.compile({shown(value)})")


def check_seed(value: object) -> None:
    """Accept True, False, or the name of a kind of seed."""
    if not isinstance(value, bool):
        one_of(*SEEDS)(value)


def _disk(value: object) -> None:
    path(value)
    if is_address(value):
        try:
            parts = urlsplit(str(value))
            good = bool(parts.hostname) and parts.port != 0 and parts.path.rpartition("/")[2] != ""
        except ValueError:  # brackets that are none of an IPv6 address, a port that is no number
            good = False
        if not good:
            raise expected("the address of a file", value)


def check_checksum(value: object) -> None:
    """Accept ``KIND:HEX``, such as ``sha256:7d63…``."""
    wanted = f"a checksum such as 'sha256:HEX' ({listed(DIGESTS)})"
    if not isinstance(value, str):
        raise expected_type(wanted, value)
    kind, colon, digits = value.partition(":")
    if not colon or kind not in DIGESTS or not re.fullmatch("[0-9A-Fa-f]*", digits):
        raise expected(wanted, value)
    if len(digits) != DIGESTS[kind]:
        raise Rejected(f"{kind} has {DIGESTS[kind]} hexadecimal digits, got {len(digits)}")


def _prompt(value: object) -> None:
    text("a regular expression for the shell's prompt")(value)
    try:
        re.compile(f"(?:{value})")  # it becomes a part of another one
    except (re.error, OverflowError, RecursionError) as error:
        raise Rejected(f"{shown(value)} is not a regular expression: {error}") from None


def _memory(value: object) -> None:
    read_memory(value)  # type: ignore[arg-type]  # it tells wrong types itself


_user = text("the name of a user", r"[A-Za-z_][A-Za-z0-9_.-]*\$?")

CHECKS: dict[str, Check] = {
    "disk": optional(_disk),
    "name": text("a name", r"[^\0\n]*"),
    "checksum": optional(check_checksum),
    "format": optional(one_of(*FORMATS)),
    "kernel": optional(path),
    "initrd": optional(path),
    "append": text("text for the kernel's command line", r".*"),
    "login": optional(_user),
    "password": optional(text("a password", r"[^\0\n]*")),
    "prompt": _prompt,
    "ssh_user": optional(_user),
    "ssh_key": optional(path),
    "ssh_host_key": optional(text("a public key such as 'ssh-ed25519 AAAA…'", r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+(?s:.*)")),
    "sudo": boolean,
    "shell": boolean,
    "agent": boolean,
    "ready": optional(check_ready),
    "settled": optional(text("a command")),
    "seed": optional(check_seed),
    "memory": optional(_memory),
    "cpu": optional(text("the name of a CPU model such as 'max'")),
    "devices": several("texts as for -device", "devices=['VGA']", text("text as for -device")),
    "resume": several("commands", "resume=['…']", text("a command")),
}


@checked("Image", postponable=True)
@dataclass(frozen=True, repr=False)
class Image:
    """A bootable guest: its files, and how to get into it.

    ``disk`` is the first disk, which is never written: a path, or an http(s) address with its ``checksum``
    (``sha256:HEX``; md5, sha1, sha512 too). ``format`` is the disk's (default: qcow2 for what begins like one, raw
    otherwise). ``kernel`` and ``initrd`` are booted directly, with ``append`` as command line; a disk without them has
    to have a boot loader. Relative paths start where the image is declared, like all others.

    ``login`` and ``password`` open a session on the console, which then shows ``prompt`` (a regular expression, default
    ``[$#] ``). SSH logs in as ``ssh_user``, with the private key in the file ``ssh_key``, with our own key when there
    is a seed, with ``password``, in this order; ``ssh_host_key`` is the public key by which the server is known
    (default: any is accepted). ``sudo`` says that this user may run anything as root with ``sudo -n``. ``agent`` says
    that the guest runs the QEMU guest agent, ``shell`` that it serves our virtio-serial ports.

    ``seed`` is what tells a cloud image its host name and our key: ``"nocloud"`` (True), ``"config-drive"``, or False
    for none; by default there is one if the test gives ``user_data`` or ``meta_data``. ``ready`` is the default of the
    marker's field (default: the best of shell, SSH, agent and login that is described here), ``settled`` a command that
    ends when a guest that is ready has finished its start, cloud-init for example; it must succeed. ``memory``
    and ``cpu`` are the defaults of the marker's fields, ``devices`` are QEMU's texts of devices without which the guest
    does not come up. ``resume`` are commands that each clone of a booted machine runs before it is handed
    out, such as those that make a machine-id of its own; ``{now}`` in them is the time in seconds since 1970. They also
    have to set the clock and feed the random number generator in guests where nobody can be root by shell, SSH, sudo or
    agent. ``name`` is for messages (default: the disk's or kernel's).

    Raises SpecError when a value cannot be, or two contradict each other.
    """

    disk: StrPath | None = None
    name: str = ""
    checksum: str | None = None
    format: str | None = None
    kernel: StrPath | None = None
    initrd: StrPath | None = None
    append: str = ""
    login: str | None = None
    password: str | None = None
    prompt: str = r"[$#] "
    ssh_user: str | None = None
    ssh_key: StrPath | None = None
    ssh_host_key: str | None = None
    sudo: bool = False
    shell: bool = False
    agent: bool = False
    ready: str | re.Pattern[str] | None = None
    settled: str | None = None
    seed: bool | str | None = None
    memory: int | str | None = None
    cpu: str | None = None
    devices: Sequence[str] = ()
    resume: Sequence[str] = ()

    def __repr__(self) -> str:
        return short_repr(self, implied={})

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """The image's name, or its disk's or kernel's."""
        return self.name or str(self.disk if self.disk is not None else self.kernel)

    @property
    def user(self) -> str:
        """As whom ``vm.run`` runs commands; "" where it cannot."""
        if self.shell or (self.agent and self.ssh_user is None):
            return "root"
        return self.ssh_user or ""

    @property
    def root(self) -> bool:
        """Whether ``vm.run`` can do what only root may."""
        return self.user == "root" or (self.ssh_user is not None and self.sudo)

    @property
    def ways(self) -> list[str]:
        """The ways into the guest, the best first: shell, ssh, agent."""
        return [way for way, field in WAYS.items() if getattr(self, field)]

    @property
    def when_ready(self) -> str | re.Pattern[str]:
        """The default of the marker's ``ready``."""
        if self.ready is not None:
            return self.ready
        return next(iter(self.ways), "login" if self.disk is not None else "none")

    def below(self, base: Path) -> Image:
        """Return the image with relative paths made absolute, starting at ``base``."""
        changes = {}
        for name in FILES:
            value = getattr(self, name)
            if value is not None and not holds_reference(value) and not is_address(value):
                changes[name] = base / value
        return replace(self, **changes)

    def _check(self) -> None:
        check_values("Image", {name: getattr(self, name) for name in CHECKS}, CHECKS)
        for name in ("devices", "resume"):
            value = getattr(self, name)
            if isinstance(value, list):  # a frozen image must not change with the list that it was made of
                object.__setattr__(self, name, tuple(value))
        if self.disk is None and self.kernel is None:
            raise SpecError("Image(disk=None, kernel=None): there is nothing to boot; give a disk, or a kernel")
        self._check_files()
        for needed, givers in _NEEDS.items():
            given = [name for name in givers if getattr(self, name) not in (None, False, "")]
            if given and not getattr(self, needed):
                raise self._contradiction(given[0], f"it is of use with {needed}= only")
        for way, field in WAYS.items():
            if self.ready == way and way not in self.ways:
                raise self._contradiction("ready", f"nothing else says that there is one; give {field}=")
        for field in ("settled", "resume"):
            if getattr(self, field) and not self.user:
                raise self._contradiction(field, "there is no way to run it; give ssh_user= or agent=True")

    def _check_files(self) -> None:
        if is_address(self.disk) and self.checksum is None:
            raise self._contradiction("disk", "what is fetched must be what was meant; give checksum='sha256:HEX'")
        if self.checksum is not None and not is_address(self.disk) and not holds_reference(self.disk):
            raise self._contradiction("checksum", "it is for a disk that is fetched from an http(s) address")

    def _contradiction(self, keyword: str, reason: str) -> SpecError:
        value = getattr(self, keyword)
        return SpecError(f"Image({keyword}={shown(value)}): {reason}", keyword=keyword, value=value)


# What makes sense with another field only.
_NEEDS = {
    "kernel": ("initrd", "append"),
    "disk": ("format",),
    "ssh_user": ("ssh_key", "ssh_host_key", "sudo"),
}


def from_address(value: str) -> Image:
    """Return the image of a text such as ``https://HOST/disk.qcow2#sha256=HEX``; raises Rejected."""
    address, _, fragment = value.partition("#")
    kind, equals, digits = fragment.partition("=")
    if not equals:
        raise Rejected("what is fetched must be what was meant; add its checksum: '…#sha256=HEX'")
    checksum = f"{kind}:{digits}"
    _disk(address)
    check_checksum(checksum)
    return Image(address, checksum=checksum)
