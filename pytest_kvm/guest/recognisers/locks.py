"""Recognisers: what lockdep and its like complain about (kernel/locking/, kernel/rcu/update.c)."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.frames import FUNCTION
from pytest_kvm.guest.recognisers.recogniser import Recogniser

_DEADLOCKS = (
    r"possible (?:circular locking dependency|recursive locking|irq lock inversion dependency)(?: detected)?|"
    r"\w+-safe -> \w+-unsafe lock order detected|possible reason: unannotated irqs-(?:on|off)|chain_key collision"
)
# The first of these say where the lock in question is taken, the others have their stack.
_MISUSES = r"inconsistent lock state|lock held when returning to user space|held lock freed"
_OTHERS = (
    r"bad unlock balance detected|bad contention detected|"
    r"Nested lock was not taken|nested lock was not taken|suspicious RCU usage|"
    r"lock held at task exit time|Invalid wait context|invalid wait context|circular locking deadlock detected"
)
_AT = re.compile(rf"\bat: (?:\[<[0-9a-f]+>\] )?(?P<function>{FUNCTION})\+0x")
# Since 4.11 "WARNING: possible …", before that "[ INFO: possible … ]".
_HEAD = r"(?:\[ (?:BUG|INFO|WARNING): |WARNING: |INFO: )"

LOCKS = (
    Recogniser(
        kind="lockdep",
        name="deadlock",
        cues=(b"WARNING: ", b"INFO: ", b"BUG"),
        begins=re.compile(rf"{_HEAD}(?:{_DEADLOCKS})"),
        title="possible deadlock[ in {function}]",
        details=_AT,
    ),
    Recogniser(
        kind="lockdep",
        name="lock misuse",
        cues=(b"WARNING: ", b"INFO: ", b"BUG"),
        begins=re.compile(rf"{_HEAD}(?P<what>{_MISUSES})"),
        title="{what}[ in {function}]",
        details=_AT,
    ),
    Recogniser(
        kind="lockdep",
        name="lock usage",
        cues=(b"WARNING: ", b"INFO: ", b"BUG"),
        begins=re.compile(rf"{_HEAD}(?P<what>{_OTHERS})"),
        title="{what}[ in {function}]",
    ),
    Recogniser(
        kind="lockdep",
        name="held at exit",
        cues=(b"WARNING: ", b"BUG"),
        begins=re.compile(r"(?:\[ )?(?:WARNING|BUG): \S+/\d+ still has locks held!"),
        title="still has locks held[ in {function}]",
    ),
    Recogniser(
        kind="lockdep",
        name="static key",
        cues=(b"INFO: ",),
        begins=re.compile(r"INFO: trying to register non-static key"),
        title="INFO: trying to register non-static key[ in {function}]",
    ),
    Recogniser(
        kind="lockdep",
        name="lockdep limit",
        cues=(b"BUG",),
        begins=re.compile(
            r"BUG: (?P<what>MAX_\w+ too low|looking up invalid subclass|key \S+ has not been registered)"
        ),
        title="BUG: {what}",
        span=40,
    ),
    Recogniser(
        kind="BUG",
        name="spinlock",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?P<what>(?:spinlock|rwlock|rwsem|mutex) [a-z -]+?)(?: suspected)? on CPU#"),
        title="BUG: {what}[ in {function}]",
    ),
)
