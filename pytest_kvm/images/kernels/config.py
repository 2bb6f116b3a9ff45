"""A kernel's configuration: what kbuild writes to .config."""

from __future__ import annotations

from collections.abc import Mapping


def parse_config(text: str) -> Mapping[str, str]:
    """Return the options that are set, ``y``, ``m``, a number or a text without its quotes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line)
    return {name: value.removeprefix('"').removesuffix('"') for name, value in pairs}
