"""Names of folders."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.report.names import folder_of_machine, folder_of_test

LONGEST = 120


@pytest.mark.parametrize(
    ("test", "folder"),
    [
        ("tests/test_it.py::test_boot", "tests-test_it.py-test_boot-95099df390"),
        ("test_it.py::TestIt::test_a[x86 q35/1]", "test_it.py-TestIt-test_a-x86-q35-1-b5ad539adf"),
        ("test_it.py::test_ü[\n]", "test_it.py-test_-b1bbc6124d"),
        ("../../etc/passwd", "etc-passwd-3754d6cb3a"),
        ("", "e3b0c44298"),
    ],
)
def test_what_is_readable_stays(test: str, folder: str) -> None:
    assert folder_of_test(test) == folder


def test_long_ids_keep_both_ends() -> None:
    name = folder_of_test("tests/test_it.py::test_long[" + "x" * 300 + "-last]")
    assert name.startswith("tests-test_it.py-test_long-xxx")
    assert name[:-11].endswith("xxx-last")
    assert len(name) <= LONGEST


def test_no_two_tests_share_one() -> None:
    ids = ["a.py::t[A]", "a.py::t[a]", "a.py::t[/]", "a.py::t[-]", "a.py::t-", "a.py::t", "a.py/::t", "a.py::t[\n]"]
    ids += [f"a.py::t[{'x' * 300}{number}{'y' * 300}]" for number in range(50)]
    assert len({folder_of_test(each).lower() for each in ids}) == len(ids)


@given(st.text(), st.text())
def test_any_id(one: str, other: str) -> None:
    name = folder_of_test(one)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert len(name) <= LONGEST
    assert (name.lower() == folder_of_test(other).lower()) == (one == other)


def test_surrogates() -> None:
    assert folder_of_test("a\udcff") != folder_of_test("a\udcfe")


def test_machines_of_a_test() -> None:
    assert folder_of_machine("web", frozenset()) == "web"
    assert folder_of_machine("Web", frozenset({"web"})) == "Web-2"
    assert folder_of_machine("web", frozenset({"web", "web-2"})) == "web-3"
