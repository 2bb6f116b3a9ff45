"""What a machine is made of, once every default has been filled in: the input of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.forward import Forward
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.share import Share
from pytest_kvm.spec.vm import VMSpec

DEFAULT_MACHINE = "q35"
# The image's own disks do not count among the test's: what it boots from, and its seed.
IMAGE_DISK = "disk-image"
SEED_DISK = "disk-seed"
IMAGE_DISKS = (IMAGE_DISK, SEED_DISK)
# The chardev, and the socket in the machine's folder, of the monitor that is for somebody beside us.
MONITOR = "monitor"
# The same of QEMU's gdbstub.
GDB = "gdb"
# QEMU's own: 6 AHCI ports on q35 (ICH9), two channels of two on pc (PIIX).
IDE_UNITS = {"q35": 6, "pc": 4}


@dataclass(frozen=True)
class PlannedDrive:
    """A drive with its id and place: ``id`` is that of the device and of the block node.

    ``port`` is the root port of a drive that is plugged in while the machine runs, "" for all others. ``ejected`` says
    that there is no medium in it, whatever it began with.
    """

    id: str
    drive: Drive
    unit: int
    port: str = ""
    ejected: bool = False


@dataclass(frozen=True)
class PlannedNic:
    """A NIC with its id and address; ``forwards`` are host ports that lead to the guest through it.

    ``port`` is the bus that it is plugged into while the machine runs, "" for all others; ``number`` is that of its
    network, which no other NIC of the machine has.
    """

    id: str
    nic: Nic
    mac: str
    forwards: Sequence[Forward] = ()
    port: str = ""
    number: int = 0


@dataclass(frozen=True)
class PlannedDevice:
    """A device with its id; ``port`` is the bus that it is plugged into while the machine runs, "" for all others."""

    id: str
    device: BaseDevice
    port: str = ""


@dataclass(frozen=True)
class PlannedShare:
    """A folder of the host with its id, which is the tag that the guest knows it by."""

    id: str
    share: Share


@dataclass(frozen=True)
class DriveFile:
    """The file behind a drive, as it is opened.

    ``temporary`` has QEMU throw away what is written to it; the file itself is not touched. Of an empty disk of so many
    bytes there is no file then: its ``size`` is all there is to know.
    """

    path: Path
    format: str
    read_only: bool = False
    temporary: bool = False
    size: int | None = None


@dataclass(frozen=True)
class Channel:
    """A chardev on a listening socket that QEMU inherits as descriptor ``fd``.

    ``connected`` says that we are in its backlog already: QEMU accepts before the guest runs. Without a descriptor
    there is nobody at its other end but whoever sits at the terminal.
    """

    id: str
    fd: int | None
    connected: bool = True


@dataclass(frozen=True)
class Ram:
    """The memory backends of the guest's RAM: QEMU's own memory, or files that it inherits, one for each backend.

    ``shared`` writes go into the files, or are seen by the processes that QEMU gives its memory to; otherwise they stay
    in the machine, and ``protected`` has QEMU open the files for reading only.
    """

    descriptors: Sequence[int] = ()
    shared: bool = False
    protected: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedFirmware:
    """Firmware in place of QEMU's own: its ``code``, which nobody writes.

    In ``flash`` memory it has a second device for its ``variables``, the machine's own file, which begins as a copy of
    ``template`` (None: there are none to be kept); else QEMU loads it as ``-bios``. ``secure`` lets only code in SMM
    write the variables; ``temporary`` has QEMU throw away what is written.
    """

    code: Path
    code_format: str = "raw"
    flash: bool = True
    template: Path | None = None
    variables: Path | None = None
    variables_format: str = "raw"
    smm: bool = False
    secure: bool = False
    temporary: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the command line says.

    ``plugged`` are devices that were plugged in, ``unplugged`` the ids of declared ones that were taken out, and
    ``addresses`` those that QEMU has chosen on PCI, by the devices' ids. ``seabios`` is where SeaBIOS tells what it
    does, ``firmware`` what is there in its place, ``accel`` is QEMU's text, ``ports`` are pairs of a virtio-serial
    port's name and its chardev, those of our shell; ``agent`` is the guest agent's, ``cid`` its address on vsock,
    ``tpm`` leads to swtpm, ``monitor`` is a second QMP monitor, for somebody beside us, ``gdb`` where gdb attaches.
    ``ram`` None leaves the RAM to what the test says itself. An ``incoming`` machine waits, paused, for the state
    of another one, which may come through a descriptor that is ``inherited``; a ``halted`` one for gdb.
    """

    spec: VMSpec
    accel: str
    qmp: Channel
    console: Channel | None = None
    seabios: Channel | None = None
    firmware: PlannedFirmware | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    drives: Sequence[tuple[PlannedDrive, DriveFile]] = ()
    nics: Sequence[PlannedNic] = ()
    plugged: Sequence[PlannedDevice] = ()
    unplugged: Sequence[str] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[tuple[str, Channel]] = ()
    agent: Channel | None = None
    cid: int | None = None
    tpm: Channel | None = None
    monitor: Channel | None = None
    gdb: Channel | None = None
    extras: Sequence[str] = ()
    ram: Ram | None = None
    incoming: bool = False
    halted: bool = False
    inherited: Sequence[int] = ()


def without_forwards(plan: Plan) -> Plan:
    """Return the plan of the same machine without ports of the host's, which no two machines can have."""
    return replace(plan, nics=[replace(nic, forwards=()) for nic in plan.nics])


def without_shares(plan: Plan) -> Plan:
    """Return the plan of the same machine without folders of the host, which are plugged in when it is ready."""
    return replace(plan, spec=plan.spec.replace(shares=[]))


def has_backend(spec: VMSpec) -> bool:
    """Return whether the RAM's backend is ours to choose: not on machines we do not know, nor beside ``args``."""
    machine = spec.machine or DEFAULT_MACHINE
    return machine_kind(machine) in ("q35", "pc", "microvm") and not spec.args and "memory-backend" not in machine


def machine_kind(machine: str | None) -> str:
    """Return the family of a ``-machine`` text: q35, pc, microvm, none, or other."""
    first = (machine or DEFAULT_MACHINE).split(",")[0]
    name = first.removeprefix("type=")
    if name == "q35" or name.startswith("pc-q35"):
        return "q35"
    if name == "pc" or name.startswith("pc-i440fx"):
        return "pc"
    return name if name in ("microvm", "none") else "other"


def plan_drives(spec: VMSpec) -> list[PlannedDrive]:
    """Number the spec's drives and give each its place.

    Ids are ``disk0 …`` and ``cdrom0 …`` in order of declaration, the ``cdrom`` field first among the CD-ROMs. An
    ``index`` is the place on its interface; the others take the free ones. Raises SpecError.
    """
    drives = list(spec.drives)
    if spec.cdrom is not None:
        drives.insert(0, Drive(spec.cdrom, media="cdrom", format="raw", readonly=True))
    taken = {(drive.interface, drive.index) for drive in drives if drive.index is not None}
    counts = {"disk": 0, "cdrom": 0}
    planned = []
    for drive in drives:
        unit = drive.index
        if unit is None:
            unit = next(
                number for number in range(len(drives) + len(taken) + 1) if (drive.interface, number) not in taken
            )
            taken.add((drive.interface, unit))
        planned.append(PlannedDrive(drive.id or f"{drive.media}{counts[drive.media]}", drive, unit))
        counts[drive.media] += drive.id not in IMAGE_DISKS
    kind = machine_kind(spec.machine)
    for each in planned:
        _check_place(each, kind, spec.machine)
    _check_unique("drives", [each.id for each in planned])
    return planned


def _check_place(planned: PlannedDrive, kind: str, machine: str | None) -> None:
    interface = planned.drive.interface
    limits = {"floppy": 2, "ide": IDE_UNITS.get(kind, 0)}
    if kind == "other":  # its own business: QEMU judges
        return
    if kind == "microvm" and interface in ("floppy", "ide"):
        raise SpecError(
            f"vm(machine={machine!r}): drive {planned.id!r} is on {interface}, "
            "which a microvm does not have; use virtio",
            keyword="drives",
            value=planned.drive,
        )
    if interface in limits and planned.unit >= limits[interface]:
        raise SpecError(
            f"vm(drives=…): drive {planned.id!r} is number {planned.unit} on {interface}, which has places 0 to "
            f"{limits[interface] - 1} on machine {(machine or DEFAULT_MACHINE)!r}; use virtio or scsi",
            keyword="drives",
            value=planned.drive,
        )


def plan_nics(spec: VMSpec, forwards: Sequence[Forward], macs: Sequence[str]) -> list[PlannedNic]:
    """Number the spec's NICs; the first one carries the forwards.

    ``macs`` are used, in order, for those that do not name their address: one more than needed does not hurt.
    """
    nics = spec.nics
    if nics is None:
        nics = [Nic()] if spec.image is not None else []
    planned = [
        PlannedNic(
            nic.id or f"net{number}",
            nic,
            (nic.mac or macs[number]).replace("-", ":"),
            forwards if number == 0 else (),
            number=number,
        )
        for number, nic in enumerate(nics)
    ]
    _check_unique("nics", [each.id for each in planned])
    return planned


def plan_shares(spec: VMSpec) -> list[PlannedShare]:
    """Number the spec's shares; raises SpecError for an id that is used twice."""
    planned = [PlannedShare(share.id or f"share{number}", share) for number, share in enumerate(spec.shares)]
    _check_unique("shares", [each.id for each in planned])
    return planned


def plan_devices(spec: VMSpec, taken: Iterable[str] = ()) -> list[PlannedDevice]:
    """Number the spec's devices that are not texts; no id is among those ``taken``."""
    ids = {*taken, *(device.id for device in spec.devices if isinstance(device, BaseDevice) and device.id)}
    planned = []
    for device in spec.devices:
        if isinstance(device, BaseDevice):
            name = device.id or free_id(device.KIND, ids)
            ids.add(name)
            planned.append(PlannedDevice(name, device))
    return planned


def free_id(kind: str, taken: Collection[str]) -> str:
    """Return the first of ``rng0``, ``rng1`` … that is not taken."""
    return next(name for name in (f"{kind}{number}" for number in count()) if name not in taken)


def _check_unique(keyword: str, ids: Sequence[str]) -> None:
    for name in ids:
        if ids.count(name) > 1:
            raise SpecError(
                f"vm({keyword}=…): the id {name!r} is used twice; give one of them another id=",
                keyword=keyword,
            )
