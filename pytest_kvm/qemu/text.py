"""QEMU's option texts: values from users cannot become options."""

from __future__ import annotations

from collections.abc import Mapping

# QEMU's words for switches (qapi/string-input-visitor.c).
ON, OFF = ("on", "true", "yes"), ("off", "false", "no")


def option(first: str, settings: Mapping[str, object] | None = None) -> str:
    """Return ``first,key=value,…`` with commas in values doubled, as QEMU's parser wants them.

    None leaves a key out; True and False are written on and off.
    """
    return ",".join(
        [first, *(f"{key}={_value(value)}" for key, value in (settings or {}).items() if value is not None)]
    )


def parse_option(text: str) -> tuple[str, dict[str, str]]:
    """Return what stands first in an option text, and its keys and values, as QEMU reads it: ``nokey`` is on."""
    first, *others = (part.replace("\0", ",") for part in text.replace(",,", "\0").split(","))
    if "=" in first:
        first, others = "", [first, *others]
    settings = {}
    for part in others:
        key, equals, value = part.partition("=")
        settings[key] = value if equals else "on"
    return first, settings


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
