"""All recognisers, the more specific ones first, and what they share."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.bugs import BUGS
from pytest_kvm.guest.recognisers.cues import Cues
from pytest_kvm.guest.recognisers.locks import LOCKS
from pytest_kvm.guest.recognisers.memory import MEMORY
from pytest_kvm.guest.recognisers.oopses import OOPSES
from pytest_kvm.guest.recognisers.panics import PANICS
from pytest_kvm.guest.recognisers.recogniser import Recogniser
from pytest_kvm.guest.recognisers.sanitizers import SANITIZERS
from pytest_kvm.guest.recognisers.stalls import STALLS
from pytest_kvm.guest.recognisers.startup import STARTUP

# A kernel introduces itself, a firmware begins: what was printed before is over.
NEW_KERNEL = re.compile(r"Linux version \d|Booting Linux on physical CPU")
NEW_MACHINE = re.compile(r"SeaBIOS \(version |UEFI firmware \(version ")

# What the kernel puts in front of some reports.
BANNER = re.compile(r"={24,}\Z")

RECOGNISERS: tuple[Recogniser, ...] = (*PANICS, *SANITIZERS, *STALLS, *LOCKS, *MEMORY, *STARTUP, *OOPSES, *BUGS)
CUES = Cues([cue for row in RECOGNISERS for cue in row.cues] + [b"Linux version ", b"SeaBIOS (version ", b"=" * 24])
PROMPTS = tuple(cue for row in RECOGNISERS if row.unfinished for cue in row.cues)
