"""What a machine is made of as JSON, and back: never pickled, since folders travel.

A dataclass is an object with the name of its class under ``$`` and the fields that differ from their defaults; only
classes that stand here are made again, and each checks what it is given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.qemu.plan import (
    Channel,
    DriveFile,
    Plan,
    PlannedDevice,
    PlannedDrive,
    PlannedFirmware,
    PlannedNic,
    Ram,
)
from pytest_kvm.spec.devices import CLASSES as DEVICES
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.forward import Forward
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.numa import NumaNode
from pytest_kvm.spec.share import Share
from pytest_kvm.spec.vm import VMSpec

_CLASSES = (
    VMSpec,
    Image,
    Drive,
    Nic,
    NumaNode,
    Share,
    Forward,
    Plan,
    PlannedDrive,
    PlannedFirmware,
    PlannedNic,
    PlannedDevice,
    *DEVICES,
    DriveFile,
    Channel,
    Ram,
    SavedLane,
)
_MAKERS: Mapping[str, Callable[..., Any]] = {
    **{cls.__name__: cls for cls in _CLASSES},
    "path": lambda text: Path(text),  # noqa: PLW0108  # the names of the arguments are part of the format
    "bytes": lambda hex: bytes.fromhex(hex),  # noqa: PLW0108
    "table": lambda items: dict(items),  # noqa: PLW0108
    "pattern": lambda text, flags: _pattern(text, flags),  # noqa: PLW0108
}
_KIND, _MAPPING = "$", "mapping"


def _pattern(text: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(text, flags)
    except re.error as error:
        raise ValueError(f"{text!r} is no pattern: {error}") from error


def to_plain(value: object) -> Any:
    """Return the value as what JSON knows; raises TypeError for what cannot be."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, _CLASSES):
        return {_KIND: type(value).__name__} | _given(value)
    return _single(value)


def _mapping(value: Mapping[Any, object]) -> dict[str, Any]:
    """Return a mapping, whose keys need not be texts."""
    if all(isinstance(key, str) for key in value):
        return {_KIND: _MAPPING, "items": {key: to_plain(item) for key, item in value.items()}}
    return {_KIND: "table", "items": [[to_plain(key), to_plain(item)] for key, item in value.items()]}


def _single(value: object) -> dict[str, Any]:
    if isinstance(value, os.PathLike):
        return {_KIND: "path", "text": os.fspath(value)}
    if isinstance(value, re.Pattern):
        return {_KIND: "pattern", "text": value.pattern, "flags": value.flags}
    if isinstance(value, bytes):
        return {_KIND: "bytes", "hex": value.hex()}
    raise TypeError(f"{value!r} cannot be written down")


def _given(value: object) -> dict[str, Any]:
    if not is_dataclass(value):
        raise TypeError(f"{value!r} is no dataclass")
    found = {}
    for field in fields(value):
        given = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if given != default:
            found[field.name] = to_plain(given)
    return found


def from_plain(value: Any) -> Any:
    """Return what was written down; raises ValueError (SpecError among them), TypeError, KeyError when it is not it."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, dict):
        kind = value[_KIND]
        given = value["items"] if kind == _MAPPING else {key: item for key, item in value.items() if key != _KIND}
        made = {key: from_plain(item) for key, item in given.items()}
        return made if kind == _MAPPING else _MAKERS[kind](**made)
    return value
