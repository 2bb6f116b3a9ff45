"""Whose turn it is: nobody takes too much, nobody waits for ever, nobody is overtaken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.host.amounts import NOTHING, UNLIMITED, Amount, Limits, added
from pytest_kvm.host.process import Process
from pytest_kvm.host.record import Record, Scope, State
from pytest_kvm.host.turn import REFUSALS, Turn, spare, turn

LIMITS = Limits(memory=4, vcpus=8)


def record(
    memory: int,
    *,
    pid: int,
    state: State = State.HELD,
    scope: Scope = Scope.TEST,
    run: str = "",
    since: int = 0,
    vcpus: int = 1,
    limits: Limits = LIMITS,
) -> Record:
    return Record(
        process=Process(pid, 0),
        run=run or str(pid),
        since=since,
        amount=Amount(memory, vcpus, 1),
        limits=limits,
        scope=scope,
        state=state,
    )


def waiting(memory: int, *, pid: int, since: int = 10, scope: Scope = Scope.TEST, run: str = "") -> Record:
    return record(memory, pid=pid, since=since, state=State.WAITING, scope=scope, run=run)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], Turn.TAKE),
        ([record(2, pid=2)], Turn.TAKE),
        ([record(3, pid=2)], Turn.WAIT),
        ([record(3, pid=2, state=State.PREPARED)], Turn.ASK),
        ([record(3, pid=2), record(1, pid=3, state=State.PREPARED)], Turn.WAIT),
        ([waiting(1, pid=2, since=5)], Turn.WAIT),
        ([waiting(1, pid=2, since=15)], Turn.TAKE),
        ([record(2, pid=1)], Turn.TAKE),
        ([record(3, pid=1)], Turn.HOLDING),
        ([record(2, pid=1), waiting(4, pid=2, since=5)], Turn.TAKE),
        ([record(2, pid=1), record(1, pid=3, state=State.PREPARED)], Turn.ASK),
        # A session's machines: of the own run, of another one, and beside what can be waited for.
        ([record(3, pid=2, scope=Scope.SESSION, run="1")], Turn.LASTING),
        ([record(3, pid=2, scope=Scope.SESSION)], Turn.WAIT),
        ([record(1, pid=1, scope=Scope.SESSION), record(3, pid=2)], Turn.WAIT),
        ([record(1, pid=1, scope=Scope.SESSION), record(2, pid=2, scope=Scope.SESSION)], Turn.LASTING),
        # Who waits for a session to end is passed by; who waits for a test is not.
        ([record(2, pid=3, scope=Scope.SESSION), waiting(3, pid=2, since=5)], Turn.TAKE),
        ([record(2, pid=3), waiting(3, pid=2, since=5)], Turn.WAIT),
    ],
)
def test_a_request_of_two(others: list[Record], expected: Turn) -> None:
    assert turn(waiting(2, pid=1), others) is expected


def test_at_once() -> None:
    assert turn(waiting(2, pid=1), [record(2, pid=2)], at_once=True) is Turn.TAKE
    assert turn(waiting(3, pid=1), [record(2, pid=2)], at_once=True) is Turn.HOLDING
    assert turn(waiting(2, pid=1), [waiting(4, pid=2, since=5)], at_once=True) is Turn.TAKE


@pytest.mark.parametrize(
    ("limits", "vcpus", "taken", "expected"),
    [
        (Limits(memory=1), 1, [], Turn.TOO_LARGE),
        (Limits(machines=1), 1, [], Turn.TAKE),
        (Limits(machines=1), 1, [record(1, pid=2)], Turn.WAIT),
        (Limits(vcpus=4), 3, [record(1, pid=2)], Turn.TAKE),
        (Limits(vcpus=4), 4, [record(1, pid=2)], Turn.WAIT),
        # More than there may be, for who has them all.
        (Limits(vcpus=4), 9, [], Turn.TAKE),
        (Limits(vcpus=4), 9, [record(1, pid=2)], Turn.WAIT),
        (Limits(vcpus=4), 9, [record(1, pid=2, vcpus=0, state=State.PREPARED)], Turn.TAKE),
    ],
)
def test_each_limit(limits: Limits, vcpus: int, taken: list[Record], expected: Turn) -> None:
    assert turn(record(2, pid=1, vcpus=vcpus, limits=limits, state=State.WAITING), taken) is expected


def test_room_to_spare() -> None:
    ahead = record(2, pid=1, since=10, state=State.PREPARED)
    assert spare(ahead, [record(2, pid=2)])
    assert not spare(ahead, [record(3, pid=2)])
    assert not spare(ahead, [record(1, pid=2, state=State.PREPARED), record(2, pid=3, state=State.PREPARED)])
    assert not spare(ahead, [waiting(4, pid=2, since=5)])
    assert spare(ahead, [record(1, pid=3, scope=Scope.SESSION), waiting(4, pid=2, since=5)])


# Sessions with random tests, in random order.


@dataclass
class Script:
    """A test: what it takes for the session, what it declares, what it asks for later."""

    session: int
    declared: int
    later: list[int]
    vcpus: int


@dataclass
class Worker:
    """A process of a run, in the middle of a test; ``steps`` are its further requests and the end of the test."""

    process: Process
    run: str
    limits: Limits
    steps: Iterator[tuple[Scope, Amount] | None]
    now: tuple[Scope, Amount] | None = None
    request: Record | None = None
    held: list[Record] = field(default_factory=list)
    done: bool = False


def steps(scripts: list[Script]) -> Iterator[tuple[Scope, Amount] | None]:
    for number, script in enumerate(scripts):
        if script.session and number == 0:
            yield Scope.SESSION, Amount(script.session, script.vcpus, 1)
        for memory in [script.declared, *script.later]:
            if memory:
                yield Scope.TEST, Amount(memory, script.vcpus, 1)
        yield None


class Host:
    """Workers that take turns in the order that ``choices`` say."""

    def __init__(self, workers: list[Worker], choices: Iterator[int]) -> None:
        self.workers = workers
        self.choices = choices
        self.clock = itertools.count()
        for worker in workers:
            self.go_on(worker)

    def records(self) -> list[Record]:
        return [
            record
            for worker in self.workers
            for record in [*worker.held, *([worker.request] if worker.request is not None else [])]
        ]

    def go_on(self, worker: Worker) -> None:
        worker.request = None
        try:
            worker.now = next(worker.steps)
        except StopIteration:
            worker.done = True
            run = [each for each in self.workers if each.run == worker.run]
            if all(each.done for each in run):  # as xdist does it: nobody's session ends before
                for each in run:
                    each.held.clear()

    def step(self, worker: Worker) -> bool:
        """Let a worker go on; return whether it could."""
        if worker.now is None:
            worker.held = [record for record in worker.held if record.scope is Scope.SESSION]
            self.go_on(worker)
            return True
        scope, amount = worker.now
        new = worker.request is None
        worker.request = worker.request or Record(
            process=worker.process,
            run=worker.run,
            since=next(self.clock),
            amount=amount,
            limits=worker.limits,
            scope=scope,
            state=State.WAITING,
        )
        outcome = turn(worker.request, self.records())
        assert outcome is not Turn.ASK
        if outcome in REFUSALS:
            if outcome is Turn.TOO_LARGE:
                assert new
            self.go_on(worker)
            return True
        if outcome is Turn.WAIT:
            return new
        self.take(worker, worker.request)
        self.go_on(worker)
        return True

    def take(self, worker: Worker, request: Record) -> None:
        held = [record for record in self.records() if record.state is State.HELD]
        taken = added(record.amount for record in held)
        assert taken.memory + request.amount.memory <= worker.limits.memory
        assert taken.machines + request.amount.machines <= worker.limits.machines
        assert taken.vcpus + request.amount.vcpus <= worker.limits.vcpus or taken.vcpus == 0
        if not any(record.process == worker.process and record.scope is Scope.TEST for record in held):
            lasting = added(record.amount for record in held if record.scope is Scope.SESSION)
            for other in self.records():
                if other.state is State.WAITING and other.since < request.since:
                    assert not other.limits.hold(lasting, other.amount), "overtaken"
        entry = Record(**{**vars(request), "state": State.HELD})
        worker.held.append(entry)

    def go(self) -> None:
        while unfinished := [worker for worker in self.workers if not worker.done]:
            first = next(self.choices) % len(unfinished)
            assert any(self.step(worker) for worker in unfinished[first:] + unfinished[:first]), "all wait"


SCRIPTS = st.builds(
    Script,
    session=st.integers(0, 3),
    declared=st.integers(0, 4),
    later=st.lists(st.integers(1, 3), max_size=2),
    vcpus=st.integers(1, 5),
)
BUDGETS = st.builds(
    Limits, memory=st.integers(2, 6), vcpus=st.integers(2, 6), machines=st.sampled_from([1, 2, 3, UNLIMITED])
)


@given(
    st.lists(st.tuples(BUDGETS, st.lists(st.lists(SCRIPTS, max_size=3), min_size=1, max_size=3)), max_size=3),
    st.lists(st.integers(0, 8), min_size=1, max_size=20),
)
def test_everybody_comes_to_an_end(runs: list[tuple[Limits, list[list[Script]]]], choices: list[int]) -> None:
    pids = itertools.count(1)
    workers = [
        Worker(Process(next(pids), 0), f"run{number}", limits, steps(scripts))
        for number, (limits, of_workers) in enumerate(runs)
        for scripts in of_workers
    ]
    host = Host(workers, itertools.cycle(choices))
    host.go()
    assert added(record.amount for record in host.records()) == NOTHING
