"""How a wrong declaration is told: subject, reason, way out, in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar

from pytest_kvm.errors import SpecError

LONGEST_VALUE = 80
# Not \d, which is the digits of all scripts, nor any number of them: int() is not made for either.
_WHOLE = re.compile("-?[0-9]{1,18}")

Given = TypeVar("Given")
Result = TypeVar("Result")


class Rejected(ValueError):
    """A value cannot be accepted; the text is the reason, without its subject."""


def shown(value: object) -> str:
    """Return the value as a person would write it, shortened when it is long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # anything may be given, and its repr is not ours
        text = f"<a {type(value).__name__} that cannot be shown>"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def check_sayable(value: str) -> None:
    """Reject a text that no command line, and no name of a file, can carry."""
    if "\0" in value:
        raise Rejected(f"{shown(value)} has a NUL character, which no command line can carry")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise Rejected(
            f"{shown(value)} cannot be written in {error.encoding}, which command lines are in here"
        ) from None


def whole_number(text: str) -> int | None:
    """Return the number that a text is in decimal digits, with or without a minus; None for all others."""
    return int(text) if _WHOLE.fullmatch(text) else None


def listed(names: Iterable[str]) -> str:
    """Return the names with commas and a final 'or'."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return the hint that names the nearest valid name, or all of them when none is near."""
    names = list(names)
    near = nearest(word.lower(), names)
    return f"did you mean '{near}'?" if near is not None else f"valid are {listed(names)}"


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that a word is most like, None if it is like none."""
    import difflib  # only wrong declarations need it

    return next(iter(difflib.get_close_matches(word, list(names), n=1, cutoff=0.6)), None)


def expected(what: str, value: object, hint: str = "") -> Rejected:
    """Return the rejection of a value that has the right type."""
    return Rejected(f"expected {what}, got {shown(value)}{'; ' + hint if hint else ''}")


def expected_type(what: str, value: object, hint: str = "") -> Rejected:
    """Return the rejection of a value that has the wrong type."""
    article = f"{shown(value)} ({type(value).__name__})" if value is not None else "None"
    return Rejected(f"expected {what}, got {article}{'; ' + hint if hint else ''}")


@contextmanager
def about(subject: str, *, keyword: str | None, value: object) -> Iterator[None]:
    """Turn a rejection inside the block into a SpecError about ``subject``."""
    try:
        yield
    except Rejected as rejection:
        raise SpecError(f"{subject}: {rejection}", keyword=keyword, value=value) from None


def field_of(call: str, keyword: str, value: object) -> str:
    """Return the subject of an error about one field, such as ``vm(smp='two')``."""
    return f"{call}({keyword}={shown(value)})"


def parser_of(keyword: str) -> Callable[[Callable[[Given], Result]], Callable[[Given], Result]]:
    """Make a public parser of a function that rejects: it raises SpecErrors about the marker's field."""

    def decorate(read: Callable[[Given], Result]) -> Callable[[Given], Result]:
        @wraps(read)
        def parse(value: Given) -> Result:
            with about(field_of("vm", keyword, value), keyword=keyword, value=value):
                return read(value)

        return parse

    return decorate
