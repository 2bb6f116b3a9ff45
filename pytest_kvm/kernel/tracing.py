"""Events that a guest's kernel traces while a block runs: tracefs, the kernel's Documentation/trace/events.rst."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.kernel.guest import Guest

_TRACEFS = "/sys/kernel/tracing"
_EVENT = re.compile(r"[\w*?-]+(:[\w*?-]+)?")
# "            sh-123     [000] d..2.   12.345678: sched_switch: prev_comm=sh …"
_LINE = re.compile(r"\s*(.*)-(\d+)\s+\[(\d+)\]\s+\S+\s+(\d+\.\d+): (\w+): ?(.*)$")
_LOST = re.compile(r"CPU:\d+ \[LOST (\d+) EVENTS\]")


@dataclass(frozen=True)
class TraceEvent:
    """An event: its ``name``, the ``text`` that the kernel prints for it, ``time`` in seconds of the trace's clock.

    ``task`` and ``pid`` are who ran then, on which ``cpu``.
    """

    name: str
    text: str
    time: float
    task: str
    pid: int
    cpu: int


@dataclass
class Trace:
    """What was traced, there when the block has ended: ``events`` in their order, ``lost`` how many had no room."""

    events: list[TraceEvent] = field(default_factory=list)
    lost: int = 0

    def named(self, name: str) -> list[TraceEvent]:
        """Return the events of a name."""
        return [event for event in self.events if event.name == name]


def parse_trace(text: str) -> Trace:
    """Return what is in tracefs's file ``trace``."""
    found = Trace()
    for line in text.splitlines():
        if match := _LINE.match(line):
            task, pid, cpu, time, name, rest = match.groups()
            found.events.append(TraceEvent(name, rest, float(time), task.strip(), int(pid), int(cpu)))
        elif match := _LOST.match(line):
            found.lost += int(match[1])
    return found


@contextlib.contextmanager
def traced(vm: Guest, events: Sequence[str]) -> Iterator[Trace]:
    """Do what ``VM.trace_events`` says."""
    wrong = [event for event in events if _EVENT.fullmatch(event) is None]
    if wrong or not events:
        raise SpecError(f"vm.trace_events({', '.join(map(repr, wrong))}): expected events such as 'sched:sched_switch'")
    words = " ".join(map(shlex.quote, events))
    done = vm.run(
        f"test -e {_TRACEFS}/set_event || mount -t tracefs none {_TRACEFS} || exit 3; cd {_TRACEFS};"
        f" echo 0 >tracing_on; echo >set_event; echo >trace;"
        f' for event in {words}; do echo "$event" >>set_event || exit 4; done; echo 1 >tracing_on',
        check=False,
    )
    if done.returncode:
        _stop(vm)
        why = "its kernel has no tracefs" if done.returncode == 3 else (done.stderr or done.stdout).strip()
        raise MachineError(f"VM {vm.name!r}: {', '.join(events)} cannot be traced: {why}")
    trace = Trace()
    try:
        yield trace
    finally:
        found = parse_trace(_stop(vm))
        trace.events, trace.lost = found.events, found.lost


def _stop(vm: Guest) -> str:
    command = f"cd {_TRACEFS} && echo 0 >tracing_on && cat trace; echo >set_event; echo >trace"
    return vm.run(command, check=False).stdout
