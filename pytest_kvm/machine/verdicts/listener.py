"""Finds reports in what a guest prints, while it prints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pytest_kvm.guest.recognisers.scanner import Scanner
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Watch

# A report has ended when nothing has come for so long. One that is fatal ends everybody's waiting, so it may not take
# longer than this in all.
_QUIET = 0.3
_FATAL_LIMIT = 0.7


class Listener:
    """Hands the reports in a stream of output to ``found``; what it is fed may come from any thread, one at a time.

    ``broken`` is told, once, if looking for them fails.
    """

    def __init__(
        self, *, io: IOThread, watch: Watch, found: Callable[[Splat], None], broken: Callable[[Exception], None]
    ) -> None:
        self._io = io
        self._watch = watch
        self._found = found
        self._broken = broken
        self._scanner: Scanner | None = Scanner()
        # Of the pending report: the timer for its end, and when it must have ended.
        self._timer: asyncio.TimerHandle | None = None
        self._limit: float | None = None

    def feed(self, data: bytes) -> None:
        """Take what was printed."""
        with self._watch:
            if self._scanner is not None:
                self._look(lambda scanner: scanner.feed(data))
                self._io.post(self._wait_for_end)

    def finish(self) -> None:
        """Nothing more comes for now: what has begun has ended."""
        with self._watch:
            self._look(lambda scanner: scanner.finish())

    @property
    def pending(self) -> bool:
        """Whether a report has begun that may go on."""
        return self._scanner is not None and self._scanner.pending is not None

    def _look(self, step: Callable[[Scanner], list[Splat]]) -> None:
        if self._scanner is None:
            return
        try:
            reports = step(self._scanner)
        except Exception as error:  # noqa: BLE001 - whatever it is: a scan that fails must not look like one that found nothing
            self._scanner = None
            self._broken(error)
            return
        for report in reports:
            self._found(report)

    def _wait_for_end(self) -> None:
        """Set the timer for the end of the pending report. In the I/O thread."""
        with self._watch:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pending = self._scanner.pending if self._scanner is not None else None
            if pending is None:
                self._limit = None
                return
            loop = asyncio.get_running_loop()
            end = loop.time() + _QUIET
            if pending.fatal:
                self._limit = self._limit or loop.time() + _FATAL_LIMIT
                end = min(end, self._limit)
            self._timer = loop.call_at(end, self.finish)
