"""Recognisers: exceptions in the kernel, and its own assertions."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.frames import FUNCTION
from pytest_kvm.guest.recognisers.recogniser import Recogniser

_END = re.compile(r"---\[ end trace ")
CUT_HERE = frozenset({"cut here"})

OOPSES = (
    Recogniser(
        kind="oops",
        name="fault",
        cues=(b"BUG", b"nable to handle ", b"Unhandled "),
        # x86 in its versions, PowerPC; arm64, arm, RISC-V, s390; then arm alone.
        begins=re.compile(
            r"(?:BUG: |CPU \d+ )?[Uu]nable to handle "
            r"(?P<what>kernel [A-Za-z -]+?|page fault|unknown paging fault)(?= at| for| in|,|\Z)|"
            r"BUG: (?P<what2>[Kk]ernel NULL pointer dereference)|Unhandled (?:\w+: )?(?P<what3>[\w -]+?) \(0x"
        ),
        title="BUG: unable to handle {what}[ in {function}]",
        ends=_END,
    ),
    Recogniser(
        kind="oops",
        name="stack overflow",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?:\w+ )?stack guard page was hit"),
        title="BUG: stack guard page was hit[ in {function}]",
        ends=_END,
    ),
    Recogniser(
        kind="oops",
        name="double fault",
        cues=(b"PANIC: ",),
        begins=re.compile(r"(?:traps: )?PANIC: (?P<what>double fault)"),
        title="{what}[ in {function}]",
        ends=_END,
    ),
    Recogniser(
        kind="oops",
        name="die",
        cues=(b" [#",),
        # "general protection fault, probably for non-canonical address 0x…: 0000 [#1] PREEMPT SMP", since 6.10 with
        # "Oops: " in front; "Internal error: Oops - Undefined instruction: 0000000002000000 [#1]"; "Oops [#1]";
        # "Oops: Kernel access of bad area, sig: 11 [#1]".
        begins=re.compile(
            r"(?:Oops: |Internal error: )?(?:Oops - )?(?P<what>[A-Za-z][^\[:,]*?)"
            r"(?:[:,] ?[^\[]*)?: [0-9a-f]{4,16}(?: ilc:\d)? \[#\d+\]|"
            r"(?:Oops|kernel BUG|Internal error)(?:: [^\[]*)? \[#\d+\]"
        ),
        title="[{what}][ in {function}]",
        ends=_END,
        joins=frozenset({"fault", "stack overflow", "double fault", "kernel BUG", "bad mode"}),
    ),
    Recogniser(
        kind="BUG",
        name="kernel BUG",
        cues=(b"BUG",),
        begins=re.compile(r"(?:kernel BUG at |BUG: failure at )\S+?:\d+(?:[!\s]|/(?P<function>\w+)\(\))"),
        title="kernel BUG[ in {function}]",
        ends=_END,
        takes_over=CUT_HERE,
    ),
    Recogniser(
        kind="WARNING",
        name="cut here",
        cues=(b"[ cut here ]---",),
        begins=re.compile(r"-{8,}\[ cut here \]-{8,}"),
        title="WARNING[: {message}]",
        details=re.compile(r"\A(?!-{8}|WARNING: )(?P<message>\S.*)"),
        span=12,
    ),
    Recogniser(
        kind="WARNING",
        name="refcount",
        begins=re.compile(r"refcount_t: "),
        title="WARNING: refcount bug[ in {function}]",
        ends=_END,
        takes_over=CUT_HERE,
    ),
    Recogniser(
        kind="WARNING",
        name="ODEBUG",
        begins=re.compile(r"ODEBUG: "),
        title="WARNING: ODEBUG bug[ in {function}]",
        ends=_END,
        takes_over=CUT_HERE,
    ),
    Recogniser(
        kind="WARNING",
        name="WARNING",
        cues=(b"WARNING: ",),
        # "WARNING: CPU: 0 PID: 1 at kernel/foo.c:12 foo+0x1/0x2 [mod]"; before 3.16 without CPU; since 6.18 "WARNING:
        # kernel/foo.c:12 at foo+0x1/0x2 [mod], CPU#0: bash/123"; the file is missing without CONFIG_DEBUG_BUGVERBOSE.
        begins=re.compile(
            r"WARNING: (?:(?:CPU: \d+ PID: \d+ )?at (?:\S+:\d+ )?|\S+:\d+ at )"
            rf"(?P<function>{FUNCTION})(?:\+0x|\(\)|, CPU#)"
        ),
        title="WARNING in {function}",
        ends=_END,
        joins=frozenset({"refcount", "ODEBUG"}),
        takes_over=CUT_HERE,
    ),
)
