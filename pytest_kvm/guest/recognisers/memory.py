"""Recognisers: memory runs out (mm/oom_kill.c)."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.recogniser import Recogniser

_KILLED = (
    r"(?:Memory cgroup out of memory|Out of memory(?: \(\w+\))?|Killing forcefully): "
    r"Killed process \d+ \((?P<victim>[^)]*)\)"
)

MEMORY = (
    Recogniser(
        kind="OOM",
        name="OOM",
        cues=(b" invoked oom-killer: ",),
        begins=re.compile(r".{1,64} invoked oom-killer: "),
        title="OOM[: killed {victim}]",
        details=re.compile(_KILLED),
        ends=re.compile(_KILLED),
        span=4000,
    ),
    Recogniser(
        kind="OOM",
        name="OOM kill",
        cues=(b"ut of memory: Kill", b"(oom_kill_allocating_task): Kill"),
        begins=re.compile(_KILLED),
        title="OOM: killed {victim}",
        span=1,
        joins=frozenset({"OOM"}),
    ),
)
