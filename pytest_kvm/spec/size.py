"""Sizes as QEMU writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pytest_kvm.spec.text import split_options
from pytest_kvm.spec.wording import (
    Rejected,
    about,
    expected,
    expected_type,
    field_of,
    parser_of,
    shown,
    whole_number,
)

# QEMU's util/cutils.c, do_strtosz: powers of 1024, any case.
UNITS = {unit: 1024**power for power, unit in enumerate("BKMGTPE")}
SIZE_TEXT = re.compile(
    r"(?P<number>[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?P<unit>[bkmgtpe]?)", re.IGNORECASE | re.ASCII
)
LARGEST = 2**63 - 1
# What a machine has when neither the test nor the image says.
DEFAULT_MEMORY = "256M"
MOST_SLOTS = 256
MEMORY_WANTED = "a number of MiB or QEMU's text such as '512M', '1G' or '256M,slots=4,maxmem=1G'"


@dataclass(frozen=True)
class Memory:
    """Guest memory: ``size`` and ``maxmem`` in bytes; ``slots`` for memory plugged later (0: none)."""

    size: int
    slots: int = 0
    maxmem: int | None = None


def read_size(value: int | str, default_unit: str = "M") -> int:
    """Return the size in bytes; raises Rejected."""
    wanted = f"a size such as '512M' or '1.5G' (without a suffix: {default_unit})"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(wanted, value)
    match = SIZE_TEXT.fullmatch(str(value).strip())
    if match is None:
        hint = "the suffixes are b, k, M, G and T" if str(value).strip()[:1].isdigit() else ""
        raise expected(wanted, value, hint)
    size = Fraction(match["number"].rstrip(".")) * UNITS[(match["unit"] or default_unit).upper()]
    if not 0 < size <= LARGEST:
        raise Rejected(f"a size must be more than 0 and at most {LARGEST} bytes, got {shown(value)}")
    return int(size)


def parse_size(value: int | str, default_unit: str = "M") -> int:
    """Return a size in bytes.

    ``value`` is QEMU's text with one of the suffixes b, k, M, G, T, P, E (powers of 1024; fractions such as
    ``1.5G`` are allowed), or a number in ``default_unit``. Raises SpecError.
    """
    with about(field_of("vm", "size", value), keyword="size", value=value):
        return read_size(value, default_unit)


def read_memory(value: int | str | None) -> Memory:
    """Return the guest's memory, None: the default; raises Rejected."""
    if value is None:
        value = DEFAULT_MEMORY
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(MEMORY_WANTED, value)
    if isinstance(value, int) and value < 1:
        raise Rejected(f"memory must be at least 1 MiB, got {value}")
    if not str(value).strip()[:1].isdigit() and not str(value).startswith(("size=", ".")):
        raise expected(MEMORY_WANTED, value)
    options = split_options(str(value), keys=("size", "slots", "maxmem"), first="size")
    if "size" not in options:
        raise Rejected(f"{shown(value)} does not say the size")
    size = read_size(options["size"])
    if size < UNITS["M"]:
        raise Rejected(f"memory must be at least 1 MiB, got {shown(value)}")
    # QEMU's set_memory_options: slots and maxmem come together, and maxmem leaves room for the slots.
    if "slots" in options and "maxmem" not in options:
        raise Rejected("slots= needs maxmem=, as in '256M,slots=4,maxmem=1G'")
    if "maxmem" not in options:
        return Memory(size)
    maxmem = read_size(options["maxmem"])
    slots = options.get("slots", "0")
    count = whole_number(slots)
    if count is None or not 0 <= count <= MOST_SLOTS:
        raise Rejected(f"slots must be a number from 0 to {MOST_SLOTS}, got {shown(slots)}")
    if maxmem < size:
        raise Rejected(f"maxmem={options['maxmem']} is less than the memory, {options['size']}")
    if count and maxmem == size:
        raise Rejected("slots= needs a maxmem= that is larger than the memory")
    return Memory(size, count, maxmem)


parse_memory = parser_of("memory")(read_memory)
