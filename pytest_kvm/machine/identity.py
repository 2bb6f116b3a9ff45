"""Which template a machine may begin with: a key over everything that matters to it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_kvm.errors import SpecError
from pytest_kvm.host.remembering import Remembered, file_identity
from pytest_kvm.images.formats import NotADisk, detect_format, names_file, read_qcow2
from pytest_kvm.machine.board import having_read
from pytest_kvm.machine.disks import write_protected
from pytest_kvm.machine.state import FORMAT
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import SEED_DISK, DriveFile, Plan, PlannedDrive, PlannedFirmware, Ram
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec

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
    contents = Contents(memory)
    files = [
        (planned, DriveFile(_named(planned, format_, contents), format_, read_only=write_protected(planned.drive)))
        for planned, format_ in drives
    ]
    kernel = [Path(contents.of_file(path)) if path is not None else None for path in (plan.kernel, plan.initrd)]
    canonical = replace(
        plan,
        spec=having_read(spec, contents.of_file).replace(name="template", hostfwd=[], internet=False, shares=[]),
        nics=[replace(nic, mac=nic.nic.mac or "", forwards=()) for nic in plan.nics],
        drives=files,
        kernel=kernel[0],
        initrd=kernel[1],
        append=_MEASURED.sub("", plan.append),
        ram=Ram() if plan.ram is not None else None,
        monitor=None,
        gdb=None,
        firmware=_same_firmware(plan.firmware, contents) if plan.firmware is not None else None,
    )
    content = {
        "format": FORMAT,
        "command": build(canonical, binary)[1:],
        "ready": _ready(spec, image),
        "image": [image.resume, image.shell, image.login, image.user, image.settled] if image is not None else None,
        "qemu": binary.identity,
        "firmware": _firmware(binary),
        "host": host_identity(),
        "bytes": {name: content.hex() for name, content in (spec.fw_cfg or {}).items() if isinstance(content, bytes)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _same_firmware(firmware: PlannedFirmware, contents: Contents) -> PlannedFirmware:
    template = Path(contents.of_file(firmware.template)) if firmware.template is not None else None
    return replace(firmware, code=Path(contents.of_file(firmware.code)), template=template, variables=template)


def _ready(spec: VMSpec, image: Image | None) -> object:
    ready = spec.ready if spec.ready is not None else image.when_ready if image is not None else "none"
    return [ready.pattern, ready.flags] if isinstance(ready, re.Pattern) else ready


def _named(planned: PlannedDrive, format_: str, contents: Contents) -> Path:
    if planned.drive.file is None:
        return Path(f"empty:{planned.drive.size}")
    path = Path(planned.drive.file)
    if planned.id == SEED_DISK:
        return Path(f"seed:{path.stem}")  # an ISO has the time of its making in it; its name is what it says
    content = contents.of_disk(path, format_)
    # The template's overlay knows its file by this name; what has none may be another file with the same content.
    return Path(content if write_protected(planned.drive) else f"{content}:{path.resolve()}")


class Unknowable(Exception):
    """Nobody can tell whether a disk image is what it was; the text says why."""


class Contents:
    """What is in files, as hashes, which are remembered in a directory: a file is read when it is another one."""

    def __init__(self, memory: Path) -> None:
        self._remembered = Remembered(memory)

    def of_file(self, path: Path) -> str:
        """Return the SHA-256 of a file; raises SpecError when it cannot be read."""
        return str(self._about(path, "sha256", _sha256))

    def of_disk(self, path: Path, format_: str) -> str:
        """Return a hash over a disk image and all files that it refers to; raises SpecError, Unknowable."""
        if format_ == "raw":
            return self.of_file(path)
        if format_ != "qcow2":
            raise Unknowable(f"{path}: a {format_} image may refer to further files, which are not known")
        digest = hashlib.sha256(self.of_file(path).encode())
        for name, behind in self._about(path, "behind", _behind):
            if not os.path.exists(name):
                raise Unknowable(f"{path} refers to {name}, which is not a file")
            digest.update(self.of_disk(Path(name), behind).encode())
        return digest.hexdigest()

    def _about(self, path: Path, what: str, find: Callable[[Path], Any]) -> Any:
        try:
            return self._remembered.about(path, what, find)
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}", value=path) from error


def _behind(path: Path) -> list[tuple[str, str]]:
    """Return the files that a qcow2 image refers to, each with its format: what it is an overlay on, its data."""
    try:
        header = read_qcow2(path)
    except NotADisk as error:
        raise Unknowable(f"{path}: {error}") from error
    found = []
    folder = Path(os.path.abspath(path)).parent  # where relative names start
    for name in (header.backing, header.data):
        if name is not None and not (names_file(name) and (folder / name).exists()):
            raise Unknowable(f"{path} refers to {name}, which is not a file")
    if header.backing is not None:
        behind = folder / header.backing
        found.append((str(behind), header.backing_format or detect_format(behind)))
    if header.data is not None:
        found.append((str(folder / header.data), "raw"))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _firmware(binary: QEMUBinary) -> str:
    """Return a hash over the identities of the firmware and option ROMs that QEMU would load."""
    digest = hashlib.sha256()
    for directory in binary.data:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _FIRMWARE.match(entry.name) and entry.is_file():
                    digest.update(f"{entry.path}:{file_identity(Path(entry.path))}\n".encode())
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
