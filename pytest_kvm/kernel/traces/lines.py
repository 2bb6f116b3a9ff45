"""The lines of source behind addresses in an object file, with the functions that are inlined there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_kvm.kernel.traces.symbols import Address
from pytest_kvm.kernel.traces.tools import run
from pytest_kvm.waiting import Deadline

_ADDRESS = re.compile(r"0x[0-9a-f]+$")
_LINE = re.compile(r"(.+):(\d+)(?: \(discriminator \d+\))?$")


class Line(NamedTuple):
    """A line of a file, in a ``function``."""

    function: str
    file: str
    line: int


def read_lines(path: Path, addresses: Collection[Address], deadline: Deadline) -> Mapping[Address, list[Line]]:
    """Return the lines of each address, that of the innermost function first; none where nothing is known.

    Raises Undecodable.
    """
    sections: dict[str, list[Address]] = defaultdict(list)
    for address in addresses:
        sections[address.section].append(address)
    found: dict[Address, list[Line]] = {}
    for section, several in sections.items():
        options = [f"--section={section}"] if section else []
        wanted = "".join(f"{address.value:#x}\n" for address in several)
        said = run(
            "addr2line", "-a", "-f", "-i", *options, f"--exe={path}", deadline=deadline, stdin=wanted
        ).splitlines()
        starts = [number for number, line in enumerate(said) if _ADDRESS.match(line)]
        for address, start, end in zip(several, starts, [*starts[1:], len(said)], strict=False):
            found[address] = _lines(said[start + 1 : end])
    return found


def _lines(said: list[str]) -> list[Line]:
    """Return the lines that pairs of a function and a place in a file are; what is not known is ``??``."""
    found = []
    for function, place in zip(said[::2], said[1::2], strict=False):
        match = _LINE.match(place)
        if match is not None and match[1] != "??" and int(match[2]):
            found.append(Line(function, match[1], int(match[2])))
    return found
