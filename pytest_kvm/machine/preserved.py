"""A machine in a folder, as it was when its test failed: all that it takes to bring it back, on its own.

Nothing in the folder refers to a file outside, so it may be moved, packed and unpacked; only the key of SSH stays where
it is. What is in it is run by QEMU: a folder from somebody else is to be trusted like a program.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_kvm.errors import MachineError, QEMUExited, QMPError, WaitTimeout
from pytest_kvm.files import write_atomically
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.machine.disks import prepare
from pytest_kvm.machine.firmware import with_variables
from pytest_kvm.machine.plain import from_plain, to_plain
from pytest_kvm.machine.planning import with_monitor
from pytest_kvm.machine.starting import Boot, Refused, Started
from pytest_kvm.machine.state import Damaged
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.migration import loading
from pytest_kvm.qemu.plan import Plan, PlannedDrive, PlannedFirmware
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# Of the folder's content.
FORMAT = 1
MANIFEST, MEMORY, LOG, SHOWN = "manifest.json", "machine.gz", "console.log", "console.tail"
KERNEL, INITRD, FIRMWARE, VARIABLES = "kernel", "initrd", "firmware", "firmware-variables"
FOLDER = "state"
RUNNING, OFF = "running", "off"
_CHUNK = 1 << 20

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Preserved:
    """A machine in a folder; as an origin, it lets a machine begin with what it was.

    ``status`` is QEMU's of then, ``off`` when there was none; ``loaded`` says that its memory and devices are there,
    not only its disks. ``about`` is what it was, for people.
    """

    path: Path
    plan: Plan
    image: Image | None
    status: str
    loaded: bool
    lanes: Sequence[SavedLane]
    about: Mapping[str, str]

    @property
    def spec(self) -> VMSpec:
        """What the test asked for, with the defaults filled in."""
        return self.plan.spec

    @classmethod
    def load(cls, path: Path, binary: QEMUBinary) -> Preserved:
        """Return the machine in a folder, or in the folder ``state`` of it.

        Raises MachineError when there is none, or QEMU has not its machine type, Damaged when it is not as it was
        saved.
        """
        folder = next((each for each in (path, path / FOLDER) if (each / MANIFEST).is_file()), None)
        if folder is None:
            raise MachineError(f"{path} holds no machine: there is neither {MANIFEST} nor {FOLDER}/{MANIFEST}")
        try:
            found = _read(folder)
            wanted, version = found.about["machine"], found.about["qemu"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{folder / MANIFEST} is not what was written: {error}") from error
        except OSError as error:
            raise Damaged(f"{error.filename or folder}: {error.strerror}") from error
        if wanted not in ("", *binary.machines):
            raise MachineError(
                f"{folder}: the machine was saved by QEMU {version} and is a {wanted}; {binary.path}, "
                f"version {binary.version_text}, does not know that\n  name a QEMU of that version: --qemu=PATH"
            )
        return found

    def start(self, vm: VM, *, wait: bool) -> Started:
        """Let the machine go on where it was; one whose memory was not saved is booted, with its disks as they were.

        Raises MachineError.
        """
        drives = [planned for planned, _ in self.plan.drives]
        if not self.loaded:
            return Boot(drives, f"of VM {self.spec.name!r}, only the disks were saved").start(vm, wait=wait)
        began = Deadline(vm._patience)
        vm._revive()
        plan = replace(
            vm._plan,
            drives=prepare(drives, vm._folder, vm._binary),
            firmware=with_variables(vm._plan.firmware, vm._folder),
            incoming=True,
        )
        vm._launch(began, plan)
        self._feed(vm, began)
        if vm.serial is not None:
            vm.serial.replay((self.path / SHOWN).read_bytes(), (self.path / LOG).read_bytes())
        vm._plan = replace(plan, incoming=False)
        if vm.shell is not None:
            vm.shell.restore(self.lanes)
        if self.status == RUNNING:
            vm.qmp.execute("cont")
        return Started("reopened", began.elapsed)

    def _feed(self, vm: VM, deadline: Deadline) -> None:
        from pytest_kvm.qemu.sockets import connect

        path = vm._folder / "incoming"
        try:
            with loading(vm.qmp, f"unix:{path}", deadline, without_ram=False), connect(path) as connection:
                connection.settimeout(deadline.remaining())
                try:
                    with gzip.open(self.path / MEMORY) as source:
                        while data := source.read(_CHUNK):
                            connection.sendall(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # QEMU tells why, in a moment
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(f"{self.path / MEMORY}: {error}") from error
        except (QMPError, QEMUExited, WaitTimeout, TimeoutError) as error:
            raise Refused(f"VM {vm.name!r}: QEMU did not take the machine in {self.path}: {error}") from error


def write(path: Path, machine: Preserved) -> None:
    """Complete a folder that has all files but the manifest; raises OSError."""
    manifest = {
        "format": FORMAT,
        "about": dict(machine.about),
        "status": machine.status,
        "plan": to_plain(machine.plan),
        "image": to_plain(machine.image),
        "lanes": to_plain(machine.lanes),
        "files": {file.name: digest(file) for file in sorted(path.iterdir())},
    }
    write_atomically(path / MANIFEST, f"{json.dumps(manifest, indent=1)}\n".encode())


def _read(path: Path) -> Preserved:
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    if manifest["format"] != FORMAT:
        raise Damaged(
            f"{path} has format {manifest['format']}, this version reads {FORMAT}; take the one that wrote it"
        )
    files: dict[str, str] = manifest["files"]
    plan = _made(Plan, manifest["plan"])
    missing = set(_needed(plan)) - set(files)
    if missing:
        raise Damaged(f"{path / MANIFEST} does not have {', '.join(sorted(missing))}")
    for name, wanted in files.items():
        if digest(path / name) != wanted:
            raise Damaged(f"{path / name} has been changed")
    return Preserved(
        path=path,
        plan=_here(plan, path),
        image=_made(Image, manifest["image"]) if manifest["image"] is not None else None,
        status=manifest["status"],
        loaded=MEMORY in files,
        lanes=[_made(SavedLane, lane) for lane in manifest["lanes"]],
        about=manifest["about"],
    )


def _made(kind: type[Made], plain: Any) -> Made:
    made = from_plain(plain)
    if not isinstance(made, kind):
        raise TypeError(f"expected a {kind.__name__}, got {made!r}")
    return made


def _needed(plan: Plan) -> Iterator[str]:
    yield from (LOG, SHOWN)
    yield from (name for name, _ in files_of(plan))
    yield from (disk(planned) for planned, _ in plan.drives if not planned.ejected)


def files_of(plan: Plan) -> Iterator[tuple[str, Path]]:
    """Yield the files beside the drives', each with its name in the folder."""
    firmware = plan.firmware
    files = {KERNEL: plan.kernel, INITRD: plan.initrd}
    if firmware is not None:
        files |= {FIRMWARE: firmware.code, VARIABLES: firmware.variables}
    for name, file in files.items():
        if file is not None:
            yield name, file


def _here(plan: Plan, path: Path) -> Plan:
    """Return the plan with the folder's files, and with ports of the host's that are free."""
    path = path.absolute()
    return with_monitor(
        replace(
            plan,
            kernel=path / KERNEL if plan.kernel is not None else None,
            initrd=path / INITRD if plan.initrd is not None else None,
            firmware=_saved_firmware(plan.firmware, path) if plan.firmware is not None else None,
            drives=[(_saved_drive(planned, path), file) for planned, file in plan.drives],
            nics=[replace(nic, forwards=[replace(each, host_port=0) for each in nic.forwards]) for nic in plan.nics],
        )
    )


def disk(planned: PlannedDrive) -> str:
    """Return the name of a drive's file in the folder."""
    return f"{planned.id}.qcow2"


def _saved_firmware(firmware: PlannedFirmware, path: Path) -> PlannedFirmware:
    variables = path / VARIABLES if firmware.variables is not None else None
    return replace(firmware, code=path / FIRMWARE, template=variables, variables=None)


def _saved_drive(planned: PlannedDrive, path: Path) -> PlannedDrive:
    return replace(
        planned, drive=replace(planned.drive, file=path / disk(planned), size=None, format="qcow2", snapshot=True)
    )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
