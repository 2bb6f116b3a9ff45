"""The kernel's log as records."""

from __future__ import annotations

from pytest_kvm.kernel.log import Message, newer, parse_log


def test_records() -> None:
    text = "<6>[    0.000000] Linux version\n<4>[   12.345678][   T17] WARNING: a\n b\n"
    text += "<30>[   13.000000] init: up\n<3>[1.5]\n"
    assert parse_log(text) == [
        Message("info", 0.0, "Linux version"),
        Message("warning", 12.345678, "WARNING: a\n b"),
        Message("info", 13.0, "init: up"),
        Message("err", 1.5, ""),
    ]
    assert [message.severity for message in parse_log(text)] == [6, 4, 6, 3]
    assert parse_log("no prefix\n") == []
    assert parse_log("") == []


def test_newer_ones() -> None:
    one, two, three = (Message("info", float(number), "text") for number in range(3))
    assert newer([one, two, three], [one]) == [two, three]
    assert newer([one, two, three], []) == [one, two, three]
    assert newer([one, two], [one, two]) == []
    assert newer([two, three], [one]) == [two, three]  # the buffer is small
