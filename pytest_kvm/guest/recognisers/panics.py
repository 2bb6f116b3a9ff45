"""Recognisers: the kernel stops."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source

_END = re.compile(r"---\[ end Kernel panic")

PANICS = (
    Recogniser(
        kind="panic",
        name="panic",
        cues=(b"Kernel panic - not ",),
        # What stands behind the reason: an exit code, a place, the end of a sentence.
        begins=re.compile(
            r"Kernel panic - not syncing: (?P<reason>.*?)"
            r"(?:\.* exitcode=\w+|\+0x[0-9a-f]+/\S+(?: \[\w+\])?|[.:\s]+Try passing init=.*|[.:\s]*)\Z"
        ),
        title="panic: {reason}",
        ends=_END,
        fatal=True,
        takes_over=frozenset({"no root"}),
    ),
    Recogniser(
        kind="panic",
        name="no root",
        cues=(b"VFS: Cannot open root device", b"List of all partitions:"),
        # What init/do_mounts.c says before it panics.
        begins=re.compile(r"VFS: Cannot open root device|List of all partitions:"),
        title="panic: VFS: Unable to mount root fs",
        fatal=True,
    ),
    Recogniser(
        kind="panic",
        name="early exception",
        cues=(b"PANIC: ",),
        # arch/x86/mm/extable.c
        begins=re.compile(r"PANIC: early exception (?P<vector>\w+)"),
        title="panic: early exception {vector}[ in {function}]",
        fatal=True,
        source=Source.EARLY_KERNEL,
    ),
)
