"""What machines take, and may take, in numbers and in words."""

from __future__ import annotations

import os

import pytest

from pytest_kvm.host import amounts
from pytest_kvm.host.amounts import UNLIMITED, Amount, Limits, added, default_limits, mib

MIB = 1 << 20


def test_sums() -> None:
    assert added([]) == Amount()
    assert added([Amount(1, 2, 3), Amount(4, 5, 6)]) == Amount(5, 7, 9)


@pytest.mark.parametrize(
    ("limits", "taken", "wanted", "lacking"),
    [
        (Limits(), Amount(1 << 50, 99, 99), Amount(1 << 50, 99, 99), []),
        (Limits(memory=4), Amount(2, 1, 1), Amount(2, 1, 1), []),
        (Limits(memory=4), Amount(2, 1, 1), Amount(3, 1, 1), ["memory"]),
        (Limits(memory=4, vcpus=2, machines=1), Amount(2, 1, 1), Amount(3, 2, 1), ["memory", "vCPUs", "machines"]),
        (Limits(vcpus=2), Amount(2, 0, 1), Amount(2, 3, 1), []),
        (Limits(vcpus=2), Amount(2, 1, 1), Amount(2, 3, 1), ["vCPUs"]),
    ],
)
def test_what_lacks(limits: Limits, taken: Amount, wanted: Amount, lacking: list[str]) -> None:
    assert limits.exceeded(taken, wanted) == lacking
    assert limits.hold(taken, wanted) is not bool(lacking)


def test_words() -> None:
    assert str(Amount(3 * MIB + 1, 1, 1)) == "4 MiB and 1 vCPU"
    assert str(Amount(0, 2, 1)) == "0 MiB and 2 vCPUs"
    limits = Limits(memory=10 * MIB, vcpus=8, machines=3)
    assert limits.usage(Amount(4 * MIB, 2, 1)) == "4 of 10 MiB, 2 of 8 vCPUs, 1 of 3 machines"
    assert str(limits) == "10 MiB, 8 vCPUs, 3 machines"
    assert mib(MIB) == 1
    assert Limits().unlimited
    assert not limits.unlimited


@pytest.mark.parametrize(("cpus", "vcpus"), [(1, 32), (2, 32), (16, 256)])
def test_the_default(cpus: int, vcpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amounts, "total", lambda: 8 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert default_limits() == Limits(memory=6 << 30, vcpus=vcpus, machines=UNLIMITED)
