"""Recognisers: what the kernel calls a BUG, and goes on."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.frames import WAITING
from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source

BUGS = (
    Recogniser(
        kind="BUG",
        name="sleeping",
        cues=(b"BUG",),
        begins=re.compile(
            r"BUG: (?P<what>sleeping function called from invalid context|assuming \w[\w ]* context) at \S+:\d+"
        ),
        title="BUG: {what}[ in {function}]",
    ),
    Recogniser(
        kind="BUG",
        name="atomic",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?P<what>scheduling (?:while atomic|in a non-blocking section)): "),
        title="BUG: {what}[ in {function}]",
        skips=WAITING,
    ),
    Recogniser(
        kind="BUG",
        name="preemptible",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?P<what>using \w+\(\) in preemptible) \[\w+\] code: "),
        title="BUG: {what} code[ in {function}]",
        details=re.compile(r"\Acaller is (?P<function>\w[\w.]*)\+0x"),
    ),
    Recogniser(
        kind="BUG",
        name="slab",
        cues=(b"BUG",),
        begins=re.compile(r"BUG (?P<cache>\S+) \((?:Not tainted|Tainted: .*)\): (?P<what>\S.*)"),
        title="BUG {cache}: {what}[ in {function}]",
    ),
    Recogniser(
        kind="BUG",
        name="single",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?P<what>Bad rss-counter state|non-zero pgtables_bytes on freeing mm)"),
        title="BUG: {what}",
        span=1,
    ),
    Recogniser(
        kind="BUG",
        name="bad page",
        cues=(b"BUG",),
        begins=re.compile(
            r"BUG: (?P<what>Bad page (?:state|map|cache)|Dentry|"
            r"mempool element poison mismatch)"
        ),
        title="BUG: {what}[ in {function}]",
    ),
    Recogniser(
        kind="BUG",
        name="workqueue leak",
        cues=(b"BUG",),
        begins=re.compile(r"BUG: (?P<what>workqueue leaked [a-zA-Z, ]+)"),
        title="BUG: {what}[ in {function}]",
        details=re.compile(r"\A\s+(?:.* workfn=|last function: )(?P<function>\w+)"),
    ),
    Recogniser(
        kind="BUG",
        name="device",
        cues=(b"unregister_netdevice: ",),
        begins=re.compile(r"unregister_netdevice: waiting for \S+ to become free"),
        title="unregister_netdevice: waiting for a device to become free",
        span=1,
    ),
    Recogniser(
        kind="BUG",
        name="other BUG",
        cues=(b"BUG",),
        begins=re.compile(r"(?:[A-Za-z][\w .-]*: ){0,2}BUG: (?P<what>[A-Za-z][^:;(\[]{3,60}[\w)])"),
        title="BUG: {what}",
        source=Source.TIMED_KERNEL,
    ),
)
