"""How one kind of report is recognised: a row of the tables."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_LINES = 400
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"\{(\w+)\}")
# What is not the same on another day.
_ADDRESS = re.compile(r"\b(?:0x)?(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")


class Source(enum.Enum):
    """Who prints a report."""

    KERNEL = "the kernel"
    TIMED_KERNEL = "the kernel, if there is a time in front: other programs use such words, too"
    EARLY_KERNEL = "the kernel, before there is a time"
    ANYONE = "firmware, a boot loader or a program"


def _nothing() -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """One kind of report.

    ``begins`` matches the message (without time and sender) that begins the report. It contains one of ``cues``, by
    which texts are searched for it quickly; a row without cues is found only within another report. ``title`` is made
    of the named groups of ``begins`` and of ``details``, which is searched in each line of the report, and of
    ``function``, the place where it happened; a part in brackets is left out when one of its names is unknown. A digit
    behind the name of a group is for alternatives.

    ``ends`` is found in the last line; without it, a report ends with a line that cannot belong to it. ``span`` is how
    many lines it has at most. ``name`` tells rows of the same kind apart: ``joins`` has the names of the reports that
    such a line continues instead of beginning another, ``takes_over`` of those that it makes a report of this kind.
    ``skips`` matches further functions that are not the place where it happened. ``unfinished`` says that it is a
    prompt, whose line has no end.
    """

    kind: str
    begins: re.Pattern[str]
    title: str
    cues: tuple[bytes, ...] = ()
    name: str = ""
    details: re.Pattern[str] | None = None
    ends: re.Pattern[str] | None = None
    span: int = MOST_LINES
    fatal: bool = False
    joins: frozenset[str] = field(default_factory=_nothing)
    takes_over: frozenset[str] = field(default_factory=_nothing)
    skips: re.Pattern[str] | None = None
    source: Source = Source.KERNEL
    unfinished: bool = False

    def titled(self, known: Mapping[str, str]) -> str:
        """Return the title with what is known."""

        def part(found: re.Match[str]) -> str:
            return found[1] if all(name in known for name in _NAME.findall(found[1])) else ""

        text = _OPTIONAL.sub(part, self.title)
        text = _NAME.sub(lambda found: known.get(found[1], "?"), text)
        return " ".join(_ADDRESS.sub("ADDR", text).split())
