"""What is no report is not taken for one."""

from __future__ import annotations

import pytest

from pytest_kvm.guest.recognisers.scanner import Scanner
from tests.guest.recognisers.innocent import BOOTS, MESSAGES, PROGRAMS
from tests.guest.recognisers.samples import printed, scan


@pytest.mark.parametrize("name", BOOTS)
def test_a_boot(name: str) -> None:
    assert scan(printed(BOOTS[name])) == []


@pytest.mark.parametrize("line", MESSAGES + PROGRAMS)
def test_a_line(line: str) -> None:
    scanner = Scanner()
    assert scanner.feed(printed([line])) == []
    assert scanner.pending is None
    assert scanner.feed(line.encode()) == []
    assert scanner.pending is None
    assert scanner.finish() == []


def test_all_lines_together() -> None:
    assert scan(printed(MESSAGES + PROGRAMS)) == []
