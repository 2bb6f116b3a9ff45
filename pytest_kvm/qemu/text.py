"""QEMU's option texts: values from users cannot become options."""

from __future__ import annotations

from collections.abc import Mapping


def option(first: str, settings: Mapping[str, object] | None = None) -> str:
    """Return ``first,key=value,…`` with commas in values doubled, as QEMU's parser wants them.

    None leaves a key out; True and False are written on and off.
    """
    return ",".join(
        [first, *(f"{key}={_value(value)}" for key, value in (settings or {}).items() if value is not None)]
    )


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
