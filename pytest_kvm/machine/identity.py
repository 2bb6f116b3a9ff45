"""Which template a machine may begin with: a key over everything that matters to it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_kvm.errors import SpecError
from pytest_kvm.files import write_atomically
from pytest_kvm.images.image import Image
from pytest_kvm.machine.disks import QemuImgError, files_behind, write_protected
from pytest_kvm.machine.state import FORMAT
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import DriveFile, Plan, PlannedDrive, Ram
from pytest_kvm.spec.vm import VMSpec

# A file that was changed this recently may change again without a new time: nothing about it is remembered (seconds).
_SETTLED = 2.0
# Differs a little from one look to the next.
_MEASURED = re.compile(r"\btsc_early_khz=\d+")
_FIRMWARE = re.compile(r".*\.(bin|rom|fd)$")


def template_key(
    spec: VMSpec,
    plan: Plan,
    drives: Sequence[tuple[PlannedDrive, str]],
    *,
    image: Image | None,
    binary: QEMUBinary,
    memory: Path,
) -> str:
    """Return the key of the template for a machine: the same for machines that can be clones of one another.

    It hashes QEMU's command line, with contents in place of files' names and without what differs between clones of
    one template: name, addresses, forwards, whether the internet is reached. ``drives`` are those of the template, each
    with its format; ``memory`` is the directory where files' hashes are remembered. Raises SpecError for a file that
    cannot be read.
    """
    contents = Contents(memory, binary)
    files = [
        (planned, DriveFile(_named(planned, format_, contents), format_, read_only=write_protected(planned.drive)))
        for planned, format_ in drives
    ]
    kernel = [Path(contents.of_file(path)) if path is not None else None for path in (plan.kernel, plan.initrd)]
    canonical = replace(
        plan,
        spec=spec.replace(name="template", hostfwd=[], internet=False),
        nics=[replace(nic, mac=nic.nic.mac or "", forwards=()) for nic in plan.nics],
        drives=files,
        kernel=kernel[0],
        initrd=kernel[1],
        append=_MEASURED.sub("", plan.append),
        ram=Ram() if plan.ram is not None else None,
    )
    content = {
        "format": FORMAT,
        "command": build(canonical, binary)[1:],
        "ready": _ready(spec, image),
        "image": [image.resume, image.shell, image.login, image.ssh_user] if image is not None else None,
        "qemu": binary.identity,
        "firmware": _firmware(binary),
        "host": host_identity(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _ready(spec: VMSpec, image: Image | None) -> object:
    ready = spec.ready if spec.ready is not None else image.ready if image is not None else "none"
    return [ready.pattern, ready.flags] if isinstance(ready, re.Pattern) else ready


def _named(planned: PlannedDrive, format_: str, contents: Contents) -> Path:
    if planned.drive.file is None:
        return Path(f"empty:{planned.drive.size}")
    path = Path(planned.drive.file)
    content = contents.of_disk(path, format_)
    # The template's overlay knows its file by this name; what has none may be another file with the same content.
    return Path(content if write_protected(planned.drive) else f"{content}:{path.resolve()}")


class Unknowable(Exception):
    """Nobody can tell whether a disk image is what it was; the text says why."""


class Contents:
    """What is in files, as hashes, which are remembered in a directory: a file is read when it is another one."""

    def __init__(self, memory: Path, binary: QEMUBinary) -> None:
        self._memory = memory
        self._binary = binary

    def of_file(self, path: Path) -> str:
        """Return the SHA-256 of a file; raises SpecError when it cannot be read."""
        return str(self._remembered(path, "sha256", _sha256))

    def of_disk(self, path: Path, format_: str) -> str:
        """Return a hash over a disk image and all files that it refers to; raises SpecError, Unknowable."""
        if format_ == "raw":
            return self.of_file(path)
        if format_ != "qcow2":
            raise Unknowable(f"{path}: a {format_} image may refer to further files, which are not known")
        digest = hashlib.sha256(self.of_file(path).encode())
        for name, behind in self._remembered(path, "behind", self._behind):
            if not os.path.exists(name):
                raise Unknowable(f"{path} refers to {name}, which is not a file")
            digest.update(self.of_disk(Path(name), behind).encode())
        return digest.hexdigest()

    def _behind(self, path: Path) -> list[tuple[str, str]]:
        try:
            return [(str(name), format_) for name, format_ in files_behind(self._binary, path, "qcow2")]
        except QemuImgError as error:
            raise Unknowable(f"{path}: {error}") from error

    def _remembered(self, path: Path, what: str, find: Callable[[Path], Any]) -> Any:
        """Return what ``find`` returns for a file, or did when the same file was looked at before."""
        place = self._memory / f"file-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]}.json"
        known: dict[str, Any] = {}
        try:
            identity = _file_identity(path)
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                remembered = json.loads(place.read_text())
                if remembered["identity"] == identity:
                    known = remembered
            if what in known:
                return known[what]
            begun = time.time()
            found = find(path)
            settled = begun - max(path.stat().st_mtime, path.stat().st_ctime) > _SETTLED
            unchanged = _file_identity(path) == identity
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}", value=path) from error
        if unchanged and settled:
            with contextlib.suppress(OSError):  # then it is looked at again next time
                write_atomically(place, json.dumps({**known, "identity": identity, what: found}).encode())
        return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@functools.cache
def _firmware(binary: QEMUBinary) -> str:
    """Return a hash over the identities of the firmware and option ROMs that QEMU would load."""
    digest = hashlib.sha256()
    for directory in binary.data:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _FIRMWARE.match(entry.name) and entry.is_file():
                    digest.update(f"{entry.path}:{_file_identity(Path(entry.path))}\n".encode())
    return digest.hexdigest()


@functools.cache
def host_identity() -> Mapping[str, str]:
    """Return what a saved machine must find again in its host: kernel, machine-id, CPU."""
    kernel = platform.uname()
    identity = {"kernel": f"{kernel.release} {kernel.version}", "machine-id": "", "cpu": ""}
    with contextlib.suppress(OSError):  # a container need not have it
        identity["machine-id"] = Path("/etc/machine-id").read_text().strip()
    cpu = re.findall(r"^(?:model name|flags|microcode)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    identity["cpu"] = hashlib.sha256("\n".join(sorted(set(cpu))).encode()).hexdigest()
    return identity
