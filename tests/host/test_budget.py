"""Processes that contend for a budget: they wait in turn, and for nobody who is no more."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytest_kvm.errors import BudgetExceeded, HostError
from pytest_kvm.host.amounts import UNLIMITED, Amount, Limits
from pytest_kvm.host.budget import Budget
from pytest_kvm.host.ledger import Ledger
from pytest_kvm.host.record import State
from pytest_kvm.host.request import Wanted
from tests.host.contender import Contender, until

BUDGET = 3


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "budget" / "ledger"


@pytest.fixture
def contender(ledger: Path) -> Iterator[Callable[..., Contender]]:
    """Makes processes with a budget of 3 MiB."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(closing(Contender(ledger, BUDGET, **how)))


def test_a_test_waits_until_another_one_ends(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    assert first.do("take", "a", 1, 1) == "took a"
    told = second.do("take", "b", 2)
    assert re.fullmatch(
        r"told VM 'b0' of test_b waits for 2 MiB and 1 vCPU: 2 of 3 MiB are taken by "
        rf"VM 'a0' of test_a \(1 MiB and 1 vCPU, pid {first.pid}, since \d\d:\d\d:\d\d\), "
        rf"VM 'a1' of test_a \(1 MiB and 1 vCPU, pid {first.pid}, since \d\d:\d\d:\d\d\)",
        told,
    )
    assert first.do("release", "a") == "released a"
    assert second.said() == "took b"


def test_who_is_killed_has_nothing_any_more(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("take", "a", 3)
    second.tell("take", "b", 1)
    second.expect("told ")
    until(second.asleep)
    first.kill()  # and stays a zombie
    assert second.said() == "took b"


def test_one_after_the_other(contender: Callable[..., Contender], ledger: Path) -> None:
    first = contender()
    with Ledger(ledger, Limits()).opened() as page:
        first.tell("take", "a", 1)
        until(lambda: first.blocked() or not first.silent)
        assert first.silent
        assert page.records == []
    assert first.said() == "took a"


def test_who_comes_first_is_served_first(contender: Callable[..., Contender]) -> None:
    first, large, small = contender(), contender(), contender()
    first.do("take", "a", 2)
    large.tell("take", "large", 3)
    large.expect("told ")
    assert small.do("take", "small", 1).endswith("; 1 came before")  # it would fit
    first.do("release", "a")
    assert large.said() == "took large"
    large.do("release", "large")
    assert small.said() == "took small"


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_who_does_not_wait_any_more_is_in_nobodys_way(contender: Callable[..., Contender], how: str) -> None:
    first, large, small = contender(), contender(), contender()
    first.do("take", "a", 2)
    large.tell("take", "large", 3)
    large.expect("told ")
    small.tell("take", "small", 1)
    small.expect("told ")
    getattr(large, how)()
    assert small.said() == "took small"
    if how == "interrupt":
        assert large.said() == "interrupted"
        large.tell("take", "again", 3)
        large.expect("told ")


def test_two_tests_of_two_machines_on_a_budget_of_three(contender: Callable[..., Contender]) -> None:
    both = contender(), contender()
    for each in both:
        each.tell("compete", "a", 1, 1, rounds=50)
    for each in both:
        while each.said() != "done":
            pass


def test_many_at_once_never_take_too_much(contender: Callable[..., Contender], ledger: Path) -> None:
    several = [contender() for _ in range(4)]
    for number, each in enumerate(several):
        each.tell("compete", "a", *([1] * (number % 3 + 1)), rounds=20)
    running = set(range(4))
    while running:
        with Ledger(ledger, Limits()).opened() as page:
            held = [record.amount.memory for record in page.records if record.state is State.HELD]
            assert sum(held) <= BUDGET << 20
        for number in list(running):
            if several[number].said() == "done":
                running.discard(number)


def test_a_later_request_is_refused_at_once(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("take", "a", 1)
    second.do("take", "b", 1)
    refused = second.do("take", "c", 2)
    assert re.fullmatch(
        r"BudgetExceeded: VM 'c0' of test_c takes 2 MiB and 1 vCPU, and 2 of 3 MiB are taken\. It does not wait for "
        r"others, because its test has machines already, for which others may wait\. \| Taken by: \| "
        rf"- VM 'a0' of test_a \(1 MiB and 1 vCPU, pid {first.pid}, since [\d:]+\) \| "
        rf"- VM 'b0' of test_b \(1 MiB and 1 vCPU, pid {second.pid}, since [\d:]+\) \|   "
        r"declare all machines of the test in its markers: these are taken together, and waited for; "
        r"or raise the budget: --kvm-memory-budget=SIZE, --kvm-max-vcpus=N, --kvm-max-machines=N",
        refused,
    )
    assert second.do("take", "c", 1) == "took c"  # what fits is there, whoever waits
    assert second.do("beside", "b").startswith("BudgetExceeded: VM 'b0' (its snapshot) of test_b takes 1 MiB")
    first.do("release", "a")
    assert second.do("beside", "b") == "took beside"


def test_what_would_not_even_fit_alone(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender(machines=1)
    refused = (
        "BudgetExceeded: VM 'a0' and VM 'a1' of test_a take 4 MiB and 2 vCPUs: more memory than all machines together "
        "may have here (3 MiB) |   let it be smaller (memory=), or raise the budget: "
    )
    assert first.do("take", "a", 2, 2).startswith(refused)
    assert "more machines than all machines together may have here (3 MiB, 1 machines)" in second.do("take", "b", 1, 1)


def test_machines_of_a_session(contender: Callable[..., Contender]) -> None:
    one, two, other = contender(run="run"), contender(run="run"), contender()
    assert one.do("take", "shared", 2, lasting=True) == "took shared"
    # The other worker may have to end before this machine can: it must not wait for that.
    refused = two.do("take", "a", 2)
    assert "this run has machines until it ends itself" in refused
    assert f"- VM 'shared0' of test_shared (2 MiB and 1 vCPU, pid {one.pid}, since " in refused
    # Another session waits for it, but is in no way of its tests.
    other.tell("take", "b", 2)
    other.expect("told ")
    assert two.do("take", "a", 1) == "took a"
    two.do("release", "a")
    one.kill()
    assert other.said() == "took b"


def test_a_session_of_its_own_waits(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("take", "a", 2)
    second.tell("take", "shared", 2, lasting=True)
    second.expect("told ")
    first.do("release", "a")
    assert second.said() == "took shared"


def test_what_nobody_has_asked_for_is_given_up_first(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    assert first.do("prepare", "ahead", 2) == "prepared"
    assert second.do("take", "b", 2) == "took b"
    assert first.said() == "gives up"
    # A request that must not wait has time for that, too.
    second.do("release", "b")
    second.do("take", "b", 1)
    assert first.do("prepare", "ahead", 2) == "prepared"
    assert second.do("take", "c", 1) == "took c"
    assert first.said() == "gives up"


def test_what_was_made_ahead_is_kept(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("prepare", "ahead", 2)
    assert first.do("keep", "a") == "kept a"
    told = second.do("take", "b", 2)
    assert f"taken by VM 'ahead' of test_a (2 MiB and 1 vCPU, pid {first.pid}" in told


def test_what_was_made_ahead_is_for_those_who_wait(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("take", "a", 2)
    assert first.do("prepare", "ahead", 1) == "prepared"
    second.tell("take", "b", 3)  # which giving it up would not help now
    second.expect("told ")
    first.tell("release", "a")
    assert {first.said(), first.said()} == {
        "released a",
        "gives up",
    }  # by another thread, maybe before the first is told
    assert second.said() == "took b"
    second.do("release", "b")
    first.do("prepare", "ahead", 1)
    second.do("take", "b", 2)
    third = contender()
    third.tell("take", "c", 2)
    third.expect("told ")
    assert first.do("keep", "a") == "lost a"
    assert first.do("prepare", "another", 1) == "no room"


def test_an_end_gives_all_back(contender: Callable[..., Contender], ledger: Path) -> None:
    first, second = contender(), contender()
    first.do("take", "a", 1)
    first.do("prepare", "ahead", 1)
    second.tell("take", "b", 3)
    second.expect("told ")
    assert first.do("end") == "ended"
    assert second.said() == "took b"
    assert second.do("end") == "ended"
    assert not ledger.exists()


def test_a_full_disk(contender: Callable[..., Contender]) -> None:
    first, second = contender(), contender()
    first.do("full")
    assert first.do("take", "a", 2) == "took a"
    assert f"taken by a machine (2 MiB and 1 vCPU, pid {first.pid}" in second.do("take", "b", 2)
    first.do("release", "a")
    assert second.said() == "took b"


def test_a_ledger_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    budget = Budget(tmp_path / "file" / "ledger", Limits(memory=4), report=print, give_up=lambda: None)
    with pytest.raises(HostError) as caught:
        budget.take([Wanted("VM 'vm'", Amount(1, 1, 1))])
    assert str(caught.value) == (
        f"what machines take cannot be counted in {tmp_path / 'file' / 'ledger'}: Not a directory\n"
        "  make room there, or name another directory with PYTEST_KVM_CACHE; --kvm-memory-budget=off and "
        "--kvm-max-vcpus=off do without counting"
    )
    budget.close()


def test_without_limits_nothing_is_counted(ledger: Path) -> None:
    with closing(Budget(ledger, Limits(), report=print, give_up=lambda: None)) as budget:
        (share,) = budget.take([Wanted("VM 'vm'", Amount(1 << 60, 999, 1))])
        ahead = budget.prepare(Wanted("VM 'vm'", Amount(1 << 60, 999, 1)))
        assert ahead is not None
        assert ahead.keep(share.holder)
        share.beside("its snapshot").release()
        share.release()
    assert not ledger.parent.exists()


def test_the_errors_data(ledger: Path) -> None:
    limits = Limits(memory=2, vcpus=UNLIMITED)
    with closing(Budget(ledger, limits, report=print, give_up=lambda: None)) as budget:
        budget.take([Wanted("VM 'vm'", Amount(1, 1, 1))])
        with pytest.raises(BudgetExceeded) as caught:
            budget.take([Wanted("VM 'vm2'", Amount(2, 3, 1))])
        assert (caught.value.memory, caught.value.vcpus, caught.value.machines) == (2, 3, 1)
        (holder,) = caught.value.holders
        assert holder.startswith(f"VM 'vm' (1 MiB and 1 vCPU, pid {os.getpid()}, since ")
