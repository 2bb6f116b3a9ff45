"""Places in a kernel's code, as it prints them: ``function+0x12/0x40 [module]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_kvm.guest.recognisers.frames import FUNCTION

# kernel/kallsyms.c, __sprint_symbol(); the build ID of a module is there with CONFIG_STACKTRACE_BUILD_ID.
_PLACE = re.compile(
    rf"(?<![\w.$])(?P<function>{FUNCTION})\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>\w+)(?: (?P<id>[0-9a-f]{8,}))?\])?"
)
# In front of the instruction that was executed: x86, arm64, arm, RISC-V, PowerPC, s390. All else are addresses that
# calls return to.
_EXACT = re.compile(r"(?:RIP: \w+:|EIP: |[Pp][Cc] : |PC is at |epc : |NIP \[\w+\] |IP: |Krnl PSW : [\w ]+\()[^+]*$")
# "WARNING: CPU: 0 PID: 1 at kernel/fork.c:12 copy_process+0x12/0x40": it is said already.
_SAID = re.compile(r"\bat \S+:\d+ $")
# So much of a line in front of a place says what it is.
_NEAR = 300


@dataclass(frozen=True)
class Place:
    """A place in a function of ``size`` bytes, of the kernel itself ("") or a module, whose ``build_id`` may be known.

    ``exact`` says that it is that of an instruction; else it is behind a call, which is what is meant.
    """

    function: str
    offset: int
    size: int
    module: str = ""
    build_id: str = ""
    exact: bool = False


def place_of(line: str) -> Place | None:
    """Return the place that a line is about, the last that it names; None if there is none, or if it says where."""
    found = None
    for found in _PLACE.finditer(line):  # noqa: B007 - the last one is what counts
        pass
    if found is None:
        return None
    before = line[max(0, found.start() - _NEAR) : found.start()]
    if _SAID.search(before):
        return None
    return Place(
        found["function"],
        int(found["offset"], 16),
        int(found["size"], 16),
        found["module"] or "",
        found["id"] or "",
        _EXACT.search(before) is not None,
    )


def places_of(lines: list[str]) -> list[Place | None]:
    """Return the place that each line of a report is about.

    What is executed and the top of its call trace are the same place on some architectures: then both are exact.
    """
    found = [place_of(line) for line in lines]
    exact = {(each.function, each.offset, each.size, each.module) for each in found if each is not None and each.exact}
    return [
        Place(each.function, each.offset, each.size, each.module, each.build_id, exact=True)
        if each is not None and (each.function, each.offset, each.size, each.module) in exact
        else each
        for each in found
    ]
