"""What the guest agent's answers have to be like.

Each function here returns what it reads in one, and raises one of ``UNFIT`` for an answer that is not like that: the
guest may say anything.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

UNFIT = (TypeError, LookupError, AttributeError, ValueError, ArithmeticError)


class End(NamedTuple):
    """How a command ended; ``cut`` are the streams of which the agent has not kept everything."""

    status: int
    out: bytes
    err: bytes
    cut: frozenset[str]


def end(answer: Any) -> End | None:
    """Return how a command ended, None when it has not; 128 is added to a signal, as every shell does."""
    if not truth(answer["exited"]):
        return None
    code = 128 + whole(answer["signal"]) if "signal" in answer else whole(answer["exitcode"])
    cut = frozenset(f"std{name}" for name in ("out", "err") if truth(answer.get(f"{name}-truncated", False)))
    return End(code, binary(answer.get("out-data", "")), binary(answer.get("err-data", "")), cut)


def process(answer: Any) -> int:
    """Return the id of a process that was started."""
    return whole(answer["pid"])


def part(answer: Any) -> tuple[bytes, bool]:
    """Return a part of a file, and whether it is the last one."""
    return binary(answer["buf-b64"]), truth(answer["eof"])


def count(answer: Any, *, most: int) -> int:
    """Return how many bytes were written, of ``most``."""
    number = whole(answer["count"])
    if not 0 < number <= most:
        raise ValueError(number)
    return number


def names(answer: Any) -> frozenset[str]:
    """Return the commands that the agent has and may run."""
    return frozenset(str(command["name"]) for command in answer["supported_commands"] if truth(command["enabled"]))


def seconds(answer: Any) -> float:
    """Return a time in seconds, which is given in nanoseconds."""
    return whole(answer) / 1e9


def whole(value: object) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def truth(value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def binary(value: object) -> bytes:
    """Return what is in base64."""
    if not isinstance(value, str):
        raise TypeError(value)
    return base64.b64decode(value, validate=True)
