"""How long do we wait, and for what: one deadline, passed down; one way to wait for an event or the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Deadline:
    """A point in time on the monotonic clock, ``seconds`` after its creation (None: never)."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Return the seconds left, never less than 0; None means no limit (as select and Condition take it)."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0

    def sooner(self, seconds: float | None) -> Deadline:
        """Return a deadline at most ``seconds`` from now and not after this one."""
        left = self.remaining()
        limits = [limit for limit in (left, seconds) if limit is not None]
        return Deadline(min(limits) if limits else None)


class Watch:
    """The one way to wait on a machine: for something to become true, or for the news that it never will.

    Whoever changes what others wait for does so inside ``with watch:`` and calls ``notify()``. ``fail()`` gives the
    reason why waiting is in vain, such as QEMU's end; every wait then ends at once with that error.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._failure: Callable[[], Exception] | None = None

    def __enter__(self) -> None:
        self._condition.acquire()

    def __exit__(self, *_: object) -> None:
        self._condition.release()

    def notify(self) -> None:
        """Let every wait look again."""
        with self._condition:
            self._condition.notify_all()

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End all waits, now and later, with the error that ``failure`` makes. The first reason stays."""
        with self._condition:
            self._failure = self._failure or failure
            self._condition.notify_all()

    def reset(self) -> None:
        """Forget the failure: the machine is started again."""
        with self._condition:
            self._failure = None

    @property
    def failed(self) -> bool:
        """Whether ``fail`` was called."""
        return self._failure is not None

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self._failure is not None:
            raise self._failure()

    def wait_for(self, predicate: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``predicate()`` is true; return False when the deadline came first.

        What is true wins over a failure: output that arrived before the end still counts. Raises the failure.
        """
        with self._condition:
            self._condition.wait_for(lambda: predicate() or self._failure is not None, deadline.remaining())
            if predicate():
                return True
            self.check()
            return False

    def wait_only(self, predicate: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``predicate()`` is true, whatever has failed; return False when the deadline came first."""
        with self._condition:
            return self._condition.wait_for(predicate, deadline.remaining())
