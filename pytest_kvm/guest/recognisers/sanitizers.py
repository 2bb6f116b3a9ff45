"""Recognisers: KASAN, KMSAN, KCSAN, KFENCE, UBSAN, kmemleak (mm/*/report.c, kernel/kcsan/report.c, lib/ubsan.c)."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.frames import FUNCTION
from pytest_kvm.guest.recognisers.recogniser import Recogniser

_RULE = re.compile(r"\A={40,}")
_PLACE = rf"(?P<function>{FUNCTION})"

SANITIZERS = (
    Recogniser(
        kind="KASAN",
        name="KASAN",
        cues=(b"BUG",),
        begins=re.compile(
            rf"BUG: KASAN: (?P<what>[\w -]+?)(?: in {_PLACE}\S*| on address \w+)?(?: at addr \w+)?(?: \[\w+\])?\Z"
        ),
        title="KASAN: {what}[ {access}][ in {function}]",
        details=re.compile(r"\A(?P<access>Read|Write) (?:of size|at addr) "),
        ends=_RULE,
    ),
    Recogniser(
        kind="KMSAN",
        name="KMSAN",
        cues=(b"BUG",),
        begins=re.compile(rf"BUG: KMSAN: (?P<what>[\w -]+?) in {_PLACE}"),
        title="KMSAN: {what} in {function}",
        ends=_RULE,
    ),
    Recogniser(
        kind="KCSAN",
        name="KCSAN",
        cues=(b"BUG",),
        begins=re.compile(
            rf"BUG: KCSAN: (?P<what>[\w :-]+?) in (?P<one_function>{FUNCTION})\S*(?: / (?P<other_function>{FUNCTION}))?"
        ),
        title="KCSAN: {what} in {one_function}[ / {other_function}]",
        ends=_RULE,
    ),
    Recogniser(
        kind="KFENCE",
        name="KFENCE",
        cues=(b"BUG",),
        begins=re.compile(rf"BUG: KFENCE: (?P<what>[\w -]+?) in {_PLACE}"),
        title="KFENCE: {what} in {function}",
        ends=_RULE,
    ),
    Recogniser(
        kind="UBSAN",
        name="UBSAN",
        cues=(b"UBSAN: ",),
        begins=re.compile(r"UBSAN: (?P<what>[\w -]+?) in \S+:\d+(?::\d+)?"),
        title="UBSAN: {what}[ in {function}]",
        # Since 6.8 the second one.
        ends=re.compile(r"\A={40,}|---\[ end trace"),
        takes_over=frozenset({"cut here"}),
    ),
    Recogniser(
        kind="kmemleak",
        name="kmemleak",
        cues=(b"kmemleak: ",),
        begins=re.compile(r"kmemleak: \d+ new suspected memory leaks"),
        title="kmemleak: new suspected memory leaks",
        span=1,
    ),
    Recogniser(
        kind="kmemleak",
        name="leaked object",
        cues=(b"kmemleak: ",),
        # With kmemleak.verbose.
        begins=re.compile(r"kmemleak: unreferenced object 0x[0-9a-f]+ \(size \d+\):"),
        title="kmemleak: memory leak[ in {function}]",
        span=60,
        skips=re.compile(
            r"kmem\w*|_*kmalloc\w*|k[vz]?[mc]?alloc\w*|_*get_free_pages?|create_object|slab_post_alloc\w*"
        ),
    ),
)
