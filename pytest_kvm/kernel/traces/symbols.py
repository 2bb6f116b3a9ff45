"""Which addresses in an object file the kernel means by ``function+0x12/0x40``."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from pytest_kvm.kernel.traces.places import Place
from pytest_kvm.kernel.traces.tools import run
from pytest_kvm.waiting import Deadline

# "ffffffff81002460 g     F .text	00000000000001ed .hidden do_one_initcall": address, flags, section, size, name.
_SYMBOL = re.compile(r"^([0-9a-f]{8,16}) .{5}[^d][^f] (\S+)\t[0-9a-f]+(?: +\.\w+)? +(\S+)$", re.MULTILINE)
# What clang appends when it optimises across files; the kernel leaves it out (kernel/kallsyms.c, cleanup_symbol_name).
_LLVM = re.compile(r"\.llvm\.\d+$")


class Address(NamedTuple):
    """An address: in a ``section`` of a module, which is not linked yet; of a kernel as it is linked ("")."""

    section: str
    value: int


class Symbols:
    """The symbols of an object file, as far as the functions of these names need them.

    A name may be that of several functions, in different files. The size that the kernel prints is the distance to the
    next symbol, which mostly tells them apart.
    """

    def __init__(self, table: str, names: Collection[str], *, relocatable: bool) -> None:
        self._relocatable = relocatable
        self._starts: dict[str, list[Address]] = defaultdict(list)
        values: dict[str, set[int]] = defaultdict(set)
        for value, section, name in _SYMBOL.findall(table):
            if section.startswith("*") or name.startswith((".L", "$", "__crc_")):
                continue
            values[section].add(int(value, 16))
            plain = _LLVM.sub("", name) if ".llvm." in name else name
            if plain in names:
                self._starts[plain].append(Address(section, int(value, 16)))
        wanted = {start.section for starts in self._starts.values() for start in starts}
        self._values = {section: sorted(values[section]) for section in wanted}

    def find(self, place: Place) -> list[Address]:
        """Return the addresses that may be meant, none if the function is not in the file, or another one."""
        starts = list(dict.fromkeys(self._starts.get(place.function, ())))
        sizes = [self._size(start) for start in starts]
        fitting = [start for start, size in zip(starts, sizes, strict=True) if size == place.size]
        if not fitting:
            # The last one of a section reaches to something else.
            fitting = [start for start, size in zip(starts, sizes, strict=True) if size is None]
        if not fitting and not self._relocatable and len(starts) == 1:
            # The kernel's own table has not all symbols: some that stand in the middle of assembly are left out.
            fitting = starts
        at = place.offset if place.exact else max(place.offset - 1, 0)
        return [Address(start.section if self._relocatable else "", start.value + at) for start in fitting]

    def _size(self, start: Address) -> int | None:
        values = self._values[start.section]
        after = bisect_right(values, start.value)
        return values[after] - start.value if after < len(values) else None


def read_symbols(path: Path, places: Iterable[Place], deadline: Deadline) -> Symbols:
    """Return the symbols of a file that the places need; raises Undecodable."""
    with path.open("rb") as file:
        kind = file.read(18)[16:18]
    table = run("objdump", "--syms", "--wide", str(path), deadline=deadline)
    return Symbols(table, {place.function for place in places}, relocatable=kind == b"\x01\x00")
