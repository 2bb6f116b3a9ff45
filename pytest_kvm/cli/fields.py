"""The marker's fields as options of a command."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from pytest_kvm.errors import SpecError
from pytest_kvm.qemu.text import OFF, ON
from pytest_kvm.spec.board import WATCHDOG
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.fields import EXTRAS, START, USER_DATA, is_path
from pytest_kvm.spec.firmware import names_firmware_file
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.share import Share
from pytest_kvm.spec.vm import VMSpec, from_folder

Made = TypeVar("Made", Drive, Nic, NumaNode, Share)

NONE = "none"
_PATTERN = "pattern:"


@dataclass(frozen=True)
class _Field:
    """How a field is given: the option, what it is called in its help, and what makes a value of its text.

    ``many`` fields may be given repeatedly, ``flag`` fields have no text.
    """

    option: str
    metavar: str
    help: str
    read: Callable[[str], object] = str
    many: bool = False
    flag: bool = False


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Add an argument for the image and an option for each other field."""
    parser.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help="a name of 'pytest-kvm images list --all' (default: tiny), a path, an address with #sha256=, or none",
    )
    group = parser.add_argument_group("the machine, as the marker's fields")
    for name, field in FIELDS.items():
        if field.flag:
            group.add_argument(field.option, dest=name, action="store_true", default=None, help=field.help)
        else:
            action = "append" if field.many else "store"
            group.add_argument(field.option, dest=name, action=action, metavar=field.metavar, help=field.help)


def read_fields(options: argparse.Namespace) -> VMSpec:
    """Return what the options ask for, relative paths from the working directory; raises SpecError."""
    given: dict[str, object] = {}
    if options.image is not None:
        given["image"] = _or_none(options.image)
    for name, field in FIELDS.items():
        text = getattr(options, name)
        if text is None:
            continue
        if field.flag:
            given[name] = True
        elif field.many:
            given[name] = [] if text == [NONE] else [field.read(each) for each in text]
            if name == "properties":
                given[name] = _merged(given[name])
        else:
            given[name] = field.read(text)
    return VMSpec(**from_folder(given, Path.cwd()))  # type: ignore[arg-type]  # it checks them


def _or_none(text: str) -> str | Path | None:
    return None if text == NONE else Path(text) if is_path(text) else text


def _forward(text: str) -> object:
    return int(text) if text.isdecimal() else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"--timeout={text}: expected a number of seconds", keyword="timeout", value=text) from None


def _object(text: str, option: str = "--meta-data") -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        keyword = option.removeprefix("--").replace("-", "_")
        raise SpecError(f"{option}={text}: it is no JSON: {error}", keyword=keyword, value=text) from None


def _fw_cfg(text: str) -> object:
    return _object(text, "--fw-cfg")


def _smbios(text: str) -> object:
    """Read the tables by their types, which JSON has to have as texts."""
    found = _object(text, "--smbios")
    if not isinstance(found, dict):
        return found
    return {int(number) if number.isdecimal() else number: table for number, table in found.items()}


def _firmware(text: str) -> object:
    return Path(text) if names_firmware_file(text) else text


def _seed(text: str) -> object:
    return False if text in (*OFF, NONE) else text


def _ready(text: str) -> object:
    if not text.startswith(_PATTERN):
        return text
    try:
        return re.compile(text.removeprefix(_PATTERN))
    except re.error as error:
        raise SpecError(f"--ready={text}: it is no regular expression: {error}", keyword="ready", value=text) from None


def _user_data(text: str) -> object:
    return text if text.startswith(USER_DATA) else Path(text)


def _property(text: str) -> tuple[str, str, str]:
    """Read ``ID.NAME=VALUE``."""
    name, equals, value = text.partition("=")
    device, dot, key = name.partition(".")
    if not (equals and dot):
        raise SpecError(f"--set {text}: expected ID.NAME=VALUE, as in net0.mrg_rxbuf=off", keyword="properties")
    return device, key, value


def _merged(given: object) -> dict[str, dict[str, str]]:
    merged: dict[str, dict[str, str]] = {}
    for device, key, value in given if isinstance(given, list) else ():
        merged.setdefault(device, {})[key] = value
    return merged


def _drive(text: str) -> Drive:
    """Read ``PATH,field=value,…`` or ``size=64M,…``."""
    return _made(Drive, "file", "--drive", text)


def _nic(text: str) -> Nic:
    """Read ``MODEL,field=value,…``."""
    return _made(Nic, "model", "--nic", text)


def _node(text: str) -> NumaNode:
    """Read ``SIZE,cpus=0-1,distances=10:20``; the commas between CPUs are doubled, as QEMU has them."""
    node, _, distances = text.partition(",distances=")
    made = _made(NumaNode, "memory", "--numa", node)
    if not distances:
        return made
    try:
        return replace(made, distances=[int(each) for each in distances.split(":")])
    except ValueError as error:
        raise SpecError(f"--numa {text}: expected distances such as 10:20", keyword="numa", value=text) from error


def _share(text: str) -> Share:
    """Read ``FOLDER,guest=/mnt,…``."""
    if "guest=" not in text:
        raise SpecError(
            f"--share {text}: say where it is in the guest: {text},guest=/mnt", keyword="shares", value=text
        )
    return _made(Share, "host", "--share", text)


def _made(kind: type[Made], first: str, option: str, text: str) -> Made:
    """Make a ``kind`` of a text as QEMU's: fields with commas between them, a comma in one doubled."""
    given: dict[str, object] = {}
    properties: dict[str, object] = {}
    names = {field.name: str(field.type) for field in fields(kind)}
    for number, part in enumerate(_split(text)):
        name, equals, value = part.partition("=")
        if not equals or (number == 0 and name not in names):
            if number > 0:
                raise SpecError(f"{option} {text}: expected {part}=VALUE, as QEMU has it", keyword=option, value=text)
            name, value = first, part
        if name in names:
            given[name] = _value(names[name], value, f"{option} {text}: {name}")
        else:
            properties[name] = value
    if properties:  # QEMU's own, of the device
        given |= {"properties": properties} if "properties" in names else properties
    return kind(**given)  # type: ignore[arg-type]  # they check their values


def _split(text: str) -> Sequence[str]:
    """Split at single commas (QEMU's doubled ones stand for one)."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def _value(type_: str, text: str, subject: str) -> object:
    if "bool" in type_:
        if text not in (*ON, *OFF):
            raise SpecError(f"{subject}: expected on or off, not {text!r}", value=text)
        return text in ON
    if "int" in type_ and "str" not in type_.replace("StrPath", ""):
        if not text.isdecimal():
            raise SpecError(f"{subject}: expected a number, not {text!r}", value=text)
        return int(text)
    return text


FIELDS: Mapping[str, _Field] = {
    "name": _Field("--name", "NAME", "its name (default: vm)"),
    "machine": _Field("--machine", "TYPE", "QEMU's machine type (default: q35)"),
    "accel": _Field("--accel", "ACCEL", "auto (the default), kvm, tcg, hvf, or QEMU's text: tcg,thread=single"),
    "cpu": _Field("--cpu", "MODEL", "QEMU's CPU model"),
    "smp": _Field("--smp", "N", "virtual CPUs, or QEMU's text: 4,cores=2,threads=2"),
    "memory": _Field("--memory", "SIZE", "memory, such as 512M or QEMU's text (default: what the image needs)"),
    "numa": _Field(
        "--numa", "NODE", "a NUMA node: 128M,cpus=0-1 and NumaNode's fields: distances=10:20", _node, many=True
    ),
    "kernel": _Field("--kernel", "PATH", "kernel to boot, with the image's userland or without one", Path),
    "initrd": _Field("--initrd", "PATH", "its initramfs", Path),
    "append": _Field("--append", "TEXT", "more for the kernel's command line"),
    "firmware": _Field("--firmware", "KIND", "bios (the default), uefi, uefi-secure, or a file", _firmware),
    "boot": _Field("--boot", "TEXT", "boot order, as for QEMU's -boot"),
    "drives": _Field(
        "--drive", "DRIVE", "a drive: PATH or size=SIZE, and Drive's fields: a.qcow2,interface=ide", _drive, many=True
    ),
    "cdrom": _Field("--cdrom", "PATH", "an image for the CD-ROM drive", Path),
    "nics": _Field(
        "--nic", "NIC", "a network card: its model, and Nic's fields: e1000,mac=52:54:00:0:0:1; none", _nic, many=True
    ),
    "hostfwd": _Field("--hostfwd", "PORT", "forward a port of the host to this port of the guest", _forward, many=True),
    "internet": _Field("--internet", "", "let the guest reach the network", flag=True),
    "user_data": _Field(
        "--user-data", "TEXT", "for cloud images: a file, or a text that begins with #! or #cloud-", _user_data
    ),
    "meta_data": _Field("--meta-data", "JSON", "for cloud images: the seed's meta-data", _object),
    "seed": _Field("--seed", "KIND", "kind of the cloud image's seed, or off", _seed),
    "shares": _Field(
        "--share",
        "SHARE",
        "a folder of the host: FOLDER,guest=/mnt and Share's fields: readonly=off",
        _share,
        many=True,
    ),
    "devices": _Field("--device", "DEVICE", "a device, as for QEMU's -device", many=True),
    "properties": _Field(
        "--set", "ID.NAME=VALUE", "a property of a device, by its id: net0.mrg_rxbuf=off", _property, many=True
    ),
    "extras": _Field("--extra", "NAME", f"what the machine has besides: {', '.join(EXTRAS)}; none", many=True),
    "ready": _Field("--ready", "WHEN", "when it is ready: shell, ssh, agent, login, none, or pattern:REGEX", _ready),
    "timeout": _Field("--timeout", "SECONDS", "until it must be ready", _number),
    "start": _Field("--start", "HOW", f"how it begins: {', '.join(START)}"),
    "gdb": _Field("--gdb", "", "let gdb attach to it, and say how", flag=True),
    "tpm": _Field("--tpm", "VERSION", "give it a TPM, through swtpm: 2.0 or 1.2"),
    "watchdog": _Field("--watchdog", "ACTION", f"give it a watchdog, which does this: {', '.join(WATCHDOG)}"),
    "vsock": _Field("--vsock", "", "give it an address on vsock", flag=True),
    "fw_cfg": _Field("--fw-cfg", "JSON", "texts for the guest's firmware and kernel, by their names", _fw_cfg),
    "smbios": _Field("--smbios", "JSON", 'fields of SMBIOS tables: {"1": {"serial": "S1"}}', _smbios),
    "args": _Field("--arg", "ARG", "an argument for QEMU, added last: --arg=-rtc --arg=base=utc", many=True),
}
