"""QEMU's option texts as QEMU reads them (util/qemu-option.c, util/keyval.c), to see what became of a value."""

from __future__ import annotations

import itertools
import json


def read(text: str, implied: str = "") -> list[tuple[str, str]]:
    """Return keys and values, in order; a first part without ``=`` is the value of the key ``implied``."""
    found: list[tuple[str, str]] = []
    rest = text
    while True:
        key, equals, after = rest.partition("=")
        if "," in key or not equals:  # a value alone, up to a comma that is not doubled
            value, rest, more = _value(rest)
            found.append((implied if implied and not found else value, value if implied and not found else "on"))
        else:
            value, rest, more = _value(after)
            found.append((key, value))
        if not more:
            return found


def _value(text: str) -> tuple[str, str, bool]:
    value, place = "", 0
    while place < len(text):
        if text[place] == ",":
            if text[place + 1 : place + 2] != ",":
                return value, text[place + 1 :], True
            place += 1
        value += text[place]
        place += 1
    return value, "", False


def node(text: str) -> dict[str, object]:
    """Return what ``-blockdev`` was told, JSON or not, flat, with texts only."""
    if text.startswith("{"):
        return _flat(json.loads(text))
    return dict(read(text, "driver"))


def _flat(value: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = {True: "on", False: "off"}[item] if isinstance(item, bool) else item
    return flat


def of(command: list[str], name: str) -> list[str]:
    """Return the values of all options of a name."""
    return [value for option, value in itertools.pairwise(command) if option == name]
