"""What each field of the marker may hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

from pytest_kvm.spec.board import check_fw_cfg, check_smbios, check_tpm, check_watchdog
from pytest_kvm.spec.boot import read_boot
from pytest_kvm.spec.construction import raise_postponed
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.firmware import check_firmware
from pytest_kvm.spec.forward import read_hostfwd
from pytest_kvm.spec.image import Image, StrPath, check_ready, check_seed, from_address, is_address
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.share import Share
from pytest_kvm.spec.size import read_memory
from pytest_kvm.spec.smp import read_smp
from pytest_kvm.spec.values import (
    Check,
    boolean,
    identifier,
    one_of,
    optional,
    path,
    properties,
    seconds,
    several,
    text,
)
from pytest_kvm.spec.wording import Rejected, did_you_mean, expected, expected_type, listed, shown

ACCELERATORS = ("auto", "kvm", "tcg", "hvf")
EXTRAS = ("balloon", "rng", "pvpanic", "vmgenid", "rootports")
START = ("auto", "boot", "clone")
# How what cloud-init understands begins (cloud-init's documentation, "User-data formats"); CirrOS runs scripts only.
USER_DATA = ("#!", "#cloud-", "## template:", "#include", "#part-handler", "Content-Type:", "MIME-Version:")
IMAGE_SUFFIXES = (".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhdx", ".vhd", ".qed", ".iso")


class VMFields(TypedDict, total=False):
    """The keywords of the marker, of the factories and of ``VMSpec.replace``."""

    name: str
    image: StrPath | Image | None
    machine: str | None
    accel: str
    cpu: str | None
    smp: int | str
    memory: int | str | None
    numa: Sequence[NumaNode]
    kernel: StrPath | None
    initrd: StrPath | None
    append: str
    firmware: StrPath | None
    boot: str | None
    drives: Sequence[Drive]
    cdrom: StrPath | None
    nics: Sequence[Nic] | None
    hostfwd: Sequence[int | str]
    internet: bool
    user_data: StrPath | Mapping[str, object] | None
    meta_data: Mapping[str, object] | None
    seed: bool | str | None
    shares: Sequence[Share]
    devices: Sequence[str | BaseDevice]
    properties: Mapping[str, Mapping[str, object]]
    extras: Sequence[str] | None
    autostart: bool
    ready: str | re.Pattern[str] | None
    timeout: float | None
    start: str
    gdb: bool
    tpm: bool | str
    watchdog: str | None
    vsock: bool
    fw_cfg: Mapping[str, str | bytes | os.PathLike[str]] | None
    smbios: Mapping[int, Mapping[str, object] | Sequence[Mapping[str, object]]] | None
    args: Sequence[str]


def is_path(image: StrPath) -> bool:
    """Return whether an image is given by its path, rather than by its name in the catalogue or its address."""
    if not isinstance(image, str):
        return True
    return not is_address(image) and (os.sep in image or image.lower().endswith(IMAGE_SUFFIXES))


def _image(value: object) -> None:
    if isinstance(value, Image):
        raise_postponed(value)
        return
    if not isinstance(value, (str, os.PathLike)):
        raise expected_type("the name of an image, a path, Image(...) or None", value)
    path(value)
    if isinstance(value, str) and is_address(value):
        from_address(value)


def _accel(value: object) -> None:
    text("an accelerator: auto, kvm, tcg, hvf or QEMU's text such as 'tcg,thread=single'")(value)
    name = str(value).partition(",")[0]
    if name not in ACCELERATORS:
        raise Rejected(f"unknown accelerator {shown(name)}; {did_you_mean(name, ACCELERATORS)}")
    if name == "auto" and value != "auto":
        raise Rejected("'auto' takes no properties; name the accelerator, as in 'tcg,thread=single'")


def _user_data(value: object) -> None:
    wanted = "a script ('#!…'), cloud-config ('#cloud-config' or a mapping), or the path of a file with one"
    if isinstance(value, Mapping):
        _json(value)
    elif isinstance(value, os.PathLike):
        path(value)
    elif not isinstance(value, str):
        raise expected_type(wanted, value)
    elif not value.startswith(USER_DATA):
        # What begins with anything else is passed over in silence by cloud-init.
        raise expected(wanted, value, "write pathlib.Path(...)" if value.count("\n") == 0 else "")
    elif not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Rejected(f"it cannot be written as UTF-8: {error.reason}") from None


def _meta_data(value: object) -> None:
    if not isinstance(value, Mapping):
        raise expected_type("a mapping such as {'local-hostname': 'web'}", value)
    _json(value)


def _json(value: Mapping[object, object]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise expected_type("a text as key", key)
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise Rejected(f"it cannot be written down: {error}") from None


def _extra(value: object) -> None:
    if not isinstance(value, str):
        raise expected_type(listed(EXTRAS), value)
    if value not in EXTRAS:
        raise Rejected(f"unknown extra {shown(value)}; {did_you_mean(value, EXTRAS)}")


def _extras(value: object) -> None:
    several("names", "extras=['rng']", _extra)(value)
    if isinstance(value, Sequence):
        _check_unique("extra", [item for item in value if isinstance(item, str)])


def _check_unique(what: str, items: list[str]) -> None:
    for item in items:
        if items.count(item) > 1:
            raise Rejected(f"{what} '{item}' is given twice")


def _drive(value: object) -> None:
    if not isinstance(value, Drive):
        raise expected_type("Drive(...)", value, f"write Drive({shown(value)})" if isinstance(value, str) else "")
    raise_postponed(value)


def _nic(value: object) -> None:
    if not isinstance(value, Nic):
        raise expected_type("Nic(...)", value, f"write Nic(model={shown(value)})" if isinstance(value, str) else "")
    raise_postponed(value)


def _device(value: object) -> None:
    if isinstance(value, (Drive, Nic, Share)):
        keyword = {Drive: "drives", Nic: "nics", Share: "shares"}[type(value)]
        raise expected_type("a device", value, f"write {keyword}=[{shown(value)}]")
    if not isinstance(value, BaseDevice):
        text("a device such as VirtioRng(), or text as for -device")(value)
        return
    raise_postponed(value)


def _properties(value: object) -> None:
    wanted = "a mapping of ids to properties, such as {'net0': {'mrg_rxbuf': False}}"
    if not isinstance(value, Mapping):
        raise expected_type(wanted, value)
    for name, given in value.items():
        identifier(name)
        properties("id")(given)


def _share(value: object) -> None:
    if not isinstance(value, Share):
        hint = f"write Share({shown(value)}, '/mnt')" if isinstance(value, (str, os.PathLike)) else ""
        raise expected_type("Share(...)", value, hint)
    raise_postponed(value)


def _node(value: object) -> None:
    if not isinstance(value, NumaNode):
        raise expected_type("NumaNode(...)", value)
    raise_postponed(value)


def _smp(value: object) -> None:
    read_smp(value)  # type: ignore[arg-type]  # it tells wrong types itself, as the next three do


def _memory(value: object) -> None:
    read_memory(value)  # type: ignore[arg-type]


def _boot(value: object) -> None:
    read_boot(value)  # type: ignore[arg-type]


def _hostfwd(value: object) -> None:
    read_hostfwd(value)  # type: ignore[arg-type]


CHECKS: Mapping[str, Check] = {
    "name": text("a name (letters, digits, '-', '.', '_'; at most 40)", r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"),
    "image": optional(_image),
    "machine": optional(text("the name of a machine such as 'q35'")),
    "accel": _accel,
    "cpu": optional(text("the name of a CPU model such as 'max'")),
    "smp": _smp,
    "memory": optional(_memory),
    "numa": several("NumaNode(...)", "numa=[NumaNode(memory='128M', cpus=0), …]", _node),
    "kernel": optional(path),
    "initrd": optional(path),
    "append": text("text for the kernel's command line", r".*"),
    "firmware": optional(check_firmware),
    "boot": optional(_boot),
    "drives": several("Drive(...)", "drives=[Drive(...)]", _drive),
    "cdrom": optional(path),
    "nics": optional(several("Nic(...)", "nics=[Nic(...)]", _nic)),
    "hostfwd": several("ports", "hostfwd=[8080]", _hostfwd),
    "internet": boolean,
    "user_data": optional(_user_data),
    "meta_data": optional(_meta_data),
    "seed": optional(check_seed),
    "shares": several("Share(...)", "shares=[Share('data', '/mnt')]", _share),
    "devices": several("devices", "devices=['virtio-rng-pci']", _device),
    "properties": _properties,
    "extras": optional(_extras),
    "autostart": boolean,
    "ready": optional(check_ready),
    "timeout": optional(seconds),
    "start": one_of(*START),
    "gdb": boolean,
    "tpm": check_tpm,
    "watchdog": optional(check_watchdog),
    "vsock": boolean,
    "fw_cfg": optional(check_fw_cfg),
    "smbios": optional(check_smbios),
    "args": several("QEMU's arguments", "args=['-rtc', 'base=utc']", text("one of QEMU's arguments", r"(?s:.*)")),
}
