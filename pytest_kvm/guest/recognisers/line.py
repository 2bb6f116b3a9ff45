"""A line of a console, and what in it may be a message of the kernel."""

from __future__ import annotations

import re
from typing import NamedTuple

# ECMA-48: control sequences, strings up to their terminator, shorter sequences; then all that prints nothing. A tab and
# a lone carriage return, which starts a line anew, are kept.
_INVISIBLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]"
)
# printk's time, with the level in front of it that console_msg_format=syslog writes, and the caller behind it
# (CONFIG_PRINTK_CALLER); then the name that journald and syslog give to the kernel, which may repeat the time.
_TIME = r"\[ *(\d+\.\d{6})\] ?"
_STAMP = re.compile(rf"(?:<\d+>)?{_TIME}(?:\[ *[TC]\d+\] ?)?(?:(?:\S+ )?kernel: (?:{_TIME})?)?")
# Where a message without a time can begin: at the start, or behind what looks like a prompt or the name of a sender.
_PLAIN = re.compile(r"^(?:<\d+>)?|(?<=[:#$>%] )")


class Start(NamedTuple):
    """Where in a line a message can begin: at ``first`` with its prefixes, at ``text`` without.

    ``time`` is the kernel's, as it was printed; None for a message without it.
    """

    first: int
    text: int
    time: str | None


def line_of(data: bytes) -> str:
    """Return a line without its end, control characters and escape sequences.

    Bytes that are not UTF-8 are shown as ``\\xNN``.
    """
    text = _INVISIBLE.sub("", data.decode(errors="backslashreplace")).rstrip("\r")
    # What stands before a lone carriage return has been written over.
    return text.rpartition("\r")[2].rstrip()


def starts(line: str) -> list[Start]:
    """Return where in a line a message can begin, from the left; there is one at least.

    In a line with a time only behind one: the kernel writes a message as a whole, so it stands behind whatever a
    program had written to the line by then, be it another message that was printed again.
    """
    timed = [Start(found.start(), found.end(), found[2] or found[1]) for found in _STAMP.finditer(line)]
    return timed or [Start(found.start(), found.end(), None) for found in _PLAIN.finditer(line)]
