"""How long do we wait, and for what: one deadline, passed down; one way to wait for an event or the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import overload


class Usual(float):
    """A limit that nobody chose, in seconds: that of a guest on real hardware. An emulated one gets more."""


class Deadline:
    """A point in time on the monotonic clock, ``seconds`` after its creation (None: never)."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._began = time.monotonic()
        self._end = None if seconds is None else self._began + seconds

    def remaining(self) -> float | None:
        """Return the seconds left, never less than 0; None means no limit (as select and Condition take it)."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def elapsed(self) -> float:
        """The seconds since its creation."""
        return time.monotonic() - self._began

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0

    def sooner(self, seconds: float | None) -> Deadline:
        """Return a deadline at most ``seconds`` from now and not after this one."""
        left = self.remaining()
        limits = [limit for limit in (left, seconds) if limit is not None]
        return Deadline(min(limits) if limits else None)


Failure = Callable[[], Exception]


class Watch:
    """The one way to wait on a machine: for something to become true, or for the news that it never will.

    Whoever changes what others wait for does so inside ``with watch:`` and calls ``notify()``. ``fail()`` gives a
    reason why waiting is in vain, such as QEMU's end; every wait then ends at once with the first reason there is.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._failures: list[Failure] = []
        # How many times as long as on real hardware things take there.
        self.pace = 1.0
        # While it is more than 0, the end of what others wait for is what a test wants.
        self.forgiving = 0

    def __enter__(self) -> None:
        self._condition.acquire()

    def __exit__(self, *_: object) -> None:
        self._condition.release()

    def notify(self) -> None:
        """Let every wait look again."""
        with self._condition:
            self._condition.notify_all()

    def fail(self, failure: Failure) -> None:
        """End all waits, now and later, with the error that ``failure`` makes, unless there is one before it."""
        with self._condition:
            self._failures.append(failure)
            self._condition.notify_all()

    def withdraw(self, failure: Failure) -> None:
        """Take a failure back, if it is there."""
        with self._condition:
            self._failures = [other for other in self._failures if other != failure]

    def reset(self) -> None:
        """Forget all failures: the machine is started again."""
        with self._condition:
            self._failures.clear()

    @property
    def failed(self) -> bool:
        """Whether there is a failure."""
        return bool(self._failures)

    @property
    def failures(self) -> int:
        """How many there are, for a wait that knows of them."""
        return len(self._failures)

    @overload
    def limit(self, seconds: float) -> float: ...
    @overload
    def limit(self, seconds: float | None) -> float | None: ...
    def limit(self, seconds: float | None) -> float | None:
        """Return how long to wait: as somebody says, or for the usual time at the machine's pace."""
        return float(seconds * self.pace) if isinstance(seconds, Usual) else seconds

    def deadline(self, seconds: float | None) -> Deadline:
        """Return the deadline of that."""
        return Deadline(self.limit(seconds))

    def check(self, known: int = 0) -> None:
        """Raise the first failure behind those that are ``known``, if there is one."""
        if len(self._failures) > known:
            raise self._failures[known]()

    def wait_for(self, predicate: Callable[[], bool], deadline: Deadline, *, known: int = 0) -> bool:
        """Wait until ``predicate()`` is true; return False when the deadline came first.

        What is true wins over a failure: output that arrived before the end still counts. Raises the first failure,
        of those that are not ``known``.
        """
        with self._condition:
            self._condition.wait_for(lambda: predicate() or len(self._failures) > known, deadline.remaining())
            if predicate():
                return True
            self.check(known)
            return False

    def wait_only(self, predicate: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``predicate()`` is true, whatever has failed; return False when the deadline came first."""
        with self._condition:
            return self._condition.wait_for(predicate, deadline.remaining())
