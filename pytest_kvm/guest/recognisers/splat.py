"""A report of what went wrong in a guest, as it was printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Splat:
    """A report that a guest printed.

    ``kind`` is short and stable: "panic", "oops", "BUG", "WARNING", "KASAN", "KCSAN", "UBSAN", "KFENCE", "KMSAN",
    "kmemleak", "lockdep", "hung task", "RCU stall", "soft lockup", "hard lockup", "OOM", "failed init", "emergency
    shell", "firmware". ``title`` tells what and where, like syzkaller's titles ("WARNING in foo_bar"), and is the same
    for the same fault on another day: no addresses, no offsets. ``text`` is all lines of the report without control
    characters and escape sequences; what was printed in front of its first line, on the same one, is not part of it.
    ``fatal`` says that the guest cannot go on.
    """

    kind: str
    title: str
    text: str
    fatal: bool
