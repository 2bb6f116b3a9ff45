"""Which devices a command line has, and more properties for them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pytest_kvm.qemu.text import option, parse_option


@dataclass(frozen=True)
class Built:
    """A device of a command line: QEMU's ``driver`` and its ``settings``, as they were written."""

    driver: str
    settings: Mapping[str, Any]


def devices_of(command: Sequence[str]) -> dict[str, Built]:
    """Return the devices of a command line that have an id, by that."""
    found = {}
    for key, text in pairwise(command):
        if key == "-device":
            built = read_device(text)
            if "id" in built.settings:
                found[str(built.settings["id"])] = built
    return found


def without(arguments: Iterable[str], ids: Collection[str]) -> Iterator[str]:
    """Yield the arguments without the devices of these ids."""
    for argument in (given := iter(arguments)):
        if argument == "-device" and ids:
            text = next(given)
            if str(read_device(text).settings.get("id")) not in ids:
                yield from (argument, text)
        else:
            yield argument


def with_properties(arguments: Iterable[str], properties: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield the arguments, with more properties for the devices of these ids; QEMU takes what is said last."""
    before = ""
    for argument in arguments:
        if before == "-device" and properties:
            more = properties.get(str(read_device(argument).settings.get("id", "")), {})
            if argument.startswith("{") and more:
                yield json.dumps({**json.loads(argument), **more})
            else:
                yield option(argument, more)
        else:
            yield argument
        before = argument


def read_device(text: str) -> Built:
    """Return what a ``-device`` text says; it may be JSON."""
    if text.startswith("{"):
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            settings = dict(json.loads(text))
            return Built(str(settings.pop("driver")), settings)
    driver, settings = parse_option(text)
    return Built(driver or settings.get("driver", ""), settings)
