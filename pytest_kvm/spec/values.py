"""Checks of single values: each is a function that raises Rejected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from pytest_kvm.spec.reference import FixtureReference
from pytest_kvm.spec.wording import Rejected, check_sayable, did_you_mean, expected, expected_type, listed, shown

Check = Callable[[object], None]
# Python's clocks and locks end at some 9e9 (threading.TIMEOUT_MAX).
LONGEST = 1_000_000_000
# Names of properties, those of arrays among them; anything else could be the beginning of another one.
_PROPERTY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\[\]-]*")


def boolean(value: object) -> None:
    """Accept True and False."""
    if not isinstance(value, bool):
        raise expected_type("True or False", value)


def path(value: object) -> None:
    """Accept a path, as text or PathLike."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise expected_type("a path", value)
    if not os.fspath(value):
        raise expected("a path", value)
    check_sayable(os.fspath(value))


def text(what: str, pattern: str = r"(?s:.+)") -> Check:
    """Accept text that matches the whole pattern; ``what`` names it."""

    def check(value: object) -> None:
        if not isinstance(value, str):
            raise expected_type(what, value)
        if not re.fullmatch(pattern, value):
            raise expected(what, value)
        check_sayable(value)

    return check


def whole(what: str, least: int, most: int | None = None) -> Check:
    """Accept a whole number from ``least`` to ``most``."""
    limit = f"from {least} to {most}" if most is not None else f"of at least {least}"

    def check(value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise expected_type(f"{what} {limit}", value)
        if value < least or (most is not None and value > most):
            raise expected(f"{what} {limit}", value)

    return check


def seconds(value: object) -> None:
    """Accept a duration in seconds that is more than 0, and one that clocks can count."""
    wanted = "a number of seconds, more than 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise expected_type(wanted, value)
    if not 0 < value < float("inf"):
        raise expected(wanted, value)
    if value > LONGEST:
        raise Rejected(f"{shown(value)} seconds are more than {LONGEST}, the longest that is waited")


def one_of(*names: str) -> Check:
    """Accept one of the names."""

    def check(value: object) -> None:
        if not isinstance(value, str):
            raise expected_type(listed(names), value)
        if value not in names:
            raise Rejected(f"unknown value {shown(value)}; {did_you_mean(value, names)}")

    return check


def optional(check: Check) -> Check:
    """Accept None too."""

    def check_given(value: object) -> None:
        if value is not None:
            check(value)

    return check_given


def several(what: str, example: str, check: Check) -> Check:
    """Accept a list of values that each pass ``check``; fixtures' names in it are left for later."""

    def check_items(value: object) -> None:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
            raise expected_type(f"a list of {what}", value, f"write {example}")
        for item in value:
            if not isinstance(item, FixtureReference):
                check(item)

    return check_items


def properties(*own_fields: str) -> Check:
    """Accept a mapping of device properties, without those that are fields of their own."""

    def check(value: object) -> None:
        if not isinstance(value, Mapping):
            raise expected_type("a mapping of device properties", value)
        for key, item in value.items():
            if not isinstance(key, str):
                raise expected_type("the name of a device property", key)
            if not _PROPERTY.fullmatch(key):
                raise expected("the name of a device property", key)
            if key == "driver" or key in own_fields:
                raise Rejected(f"the property '{key}' is set by the plugin; it cannot be given here")
            if not isinstance(item, (str, int, float, bool, list, tuple, dict, FixtureReference)):
                raise expected_type(f"text, a number, True or False for the property '{key}'", item)
            if isinstance(item, str):
                check_sayable(item)

    return check


identifier = text("a QEMU id (a letter, then letters, digits, '-', '.' or '_')", r"[A-Za-z][A-Za-z0-9._-]*")
