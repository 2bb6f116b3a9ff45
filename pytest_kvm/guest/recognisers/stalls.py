"""Recognisers: nothing goes on (kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, kernel/workqueue.c)."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.frames import BUSY, WAITING
from pytest_kvm.guest.recognisers.recogniser import Recogniser

STALLS = (
    Recogniser(
        kind="soft lockup",
        name="soft lockup",
        cues=(b"BUG",),
        begins=re.compile(r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s!"),
        title="BUG: soft lockup[ in {function}]",
        skips=BUSY,
    ),
    Recogniser(
        kind="hard lockup",
        name="hard lockup",
        cues=(b"LOCKUP",),
        begins=re.compile(
            r"(?:(?:NMI )?[Ww]atchdog: )?(?:Watchdog detected hard LOCKUP on cpu|"
            r"Watchdog CPU:\d+ (?:Hard LOCKUP|detected Hard LOCKUP)|CPU \d+ self-detected hard LOCKUP)"
        ),
        title="hard lockup[ in {function}]",
        skips=BUSY,
    ),
    Recogniser(
        kind="hung task",
        name="hung task",
        cues=(b"INFO: ",),
        begins=re.compile(
            r"INFO: task .{1,64}:\d+ (?:is )?blocked (?:(?:on|in) .{1,80}? )?for more than \d+ seconds|"
            r"INFO: task .{1,64}:\d+ can't die "
        ),
        title="INFO: task hung[ in {function}]",
        skips=WAITING,
    ),
    Recogniser(
        kind="RCU stall",
        name="RCU stall",
        cues=(b"INFO: ",),
        begins=re.compile(r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?(?:\?| on|, but)"),
        title="INFO: rcu detected stall[ in {function}]",
        skips=BUSY,
    ),
    Recogniser(
        kind="BUG",
        name="workqueue lockup",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: workqueue lockup - pool"),
        title="BUG: workqueue lockup",
    ),
)
