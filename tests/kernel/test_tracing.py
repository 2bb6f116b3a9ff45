"""Events that a guest's kernel traces."""

from __future__ import annotations

import pytest

from pytest_kvm import VM, MachineError, SpecError
from pytest_kvm.kernel.tracing import Trace, TraceEvent, parse_trace
from pytest_kvm.plugin.factories import VMFactory

TEXT = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 3/3   #P:1
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
          <idle>-0       [000] d..2.    12.345678: sched_switch: prev_comm=swapper/0 ==> next_comm=sh
CPU:1 [LOST 12 EVENTS]
 kworker/u8:1-w-17      [001] .....    13.000001: workqueue_execute_start: work struct 1: function f
              sh-123     [000] .....    14.5: sys_enter:
"""


def test_what_tracefs_shows() -> None:
    trace = parse_trace(TEXT)
    assert trace.lost == 12
    assert trace.events == [
        TraceEvent("sched_switch", "prev_comm=swapper/0 ==> next_comm=sh", 12.345678, "<idle>", 0, 0),
        TraceEvent("workqueue_execute_start", "work struct 1: function f", 13.000001, "kworker/u8:1-w", 17, 1),
        TraceEvent("sys_enter", "", 14.5, "sh", 123, 0),
    ]
    assert [event.pid for event in trace.named("sys_enter")] == [123]
    assert parse_trace("").events == []


@pytest.fixture(scope="module")
def guest(vm_session_factory: VMFactory) -> VM:
    return vm_session_factory("traced")


def test_a_block_is_traced(guest: VM) -> None:
    with guest.trace_events("sched:sched_process_exec", "sched_process_exit") as trace:
        guest.run("/bin/busybox true")
    execs = trace.named("sched_process_exec")
    assert any("filename=/bin/busybox" in event.text for event in execs)
    assert trace.named("sched_process_exit")
    assert guest.run("cat /sys/kernel/tracing/set_event /sys/kernel/tracing/tracing_on").stdout == "0\n"
    before = trace.events[-1].time
    with guest.trace_events("sched:sched_process_exec") as again:
        guest.run("true")
    assert all(event.time > before for event in again.events)


def test_a_block_that_fails(guest: VM) -> None:
    def fails(trace: Trace) -> None:
        guest.run("/bin/busybox true")
        raise KeyError

    with pytest.raises(KeyError), guest.trace_events("sched:sched_process_exec") as trace:
        fails(trace)
    assert trace.named("sched_process_exec")
    assert guest.run("cat /sys/kernel/tracing/tracing_on").stdout == "0\n"


def test_what_cannot_be_traced(guest: VM) -> None:
    with (
        pytest.raises(MachineError, match=r"^VM 'traced': no:such_event cannot be traced: .*nvalid argument"),
        guest.trace_events("no:such_event"),
    ):
        pass
    for wrong in ("a b", "$(reboot)", "a:b:c", ""):
        with (
            pytest.raises(SpecError, match=r"expected events such as 'sched:sched_switch'$"),
            guest.trace_events(wrong),
        ):
            pass
    with pytest.raises(SpecError), guest.trace_events():
        pass
