"""The one thread of a session that does all I/O and starts all children."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pytest_kvm.waiting import Deadline, Watch

T = TypeVar("T")

_AT_ONCE = 0.05


class IOThread:
    """An asyncio loop in a thread that lives as long as the process.

    It also starts QEMU, because the signal that PR_SET_PDEATHSIG sends follows the thread that forked
    (prctl(2)): were that a worker thread of the user's, QEMU would die with it.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # What was started and is not reaped: their numbers are nobody else's. Used in the thread only.
        self._children: set[int] = set()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="pytest-kvm-io", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` in the thread and return what it returns, or raise what it raises."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def run_watched(self, coroutine: Coroutine[Any, Any, T], watch: Watch, deadline: Deadline) -> T:
        """Run ``coroutine`` as ``run`` does, as long as the machine lives and the deadline has not come.

        Then it is cancelled; what can be done at once is done, whatever has failed. Raises TimeoutError, the machine's
        failure, and what it raises.
        """
        work = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        work.add_done_callback(lambda _: watch.notify())
        try:
            watch.wait_only(work.done, deadline.sooner(_AT_ONCE))
            if not watch.wait_for(work.done, deadline):
                raise TimeoutError
            return work.result()
        finally:
            work.cancel()

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function`` in the thread and return what it returns, or raise what it raises."""
        if threading.current_thread() is self._thread:
            return function(*args)
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:  # noqa: BLE001 - it is raised where the call came from
                future.set_exception(error)

        self.loop.call_soon_threadsafe(work)
        return future.result()

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Let the thread call ``function`` some time soon; dropped when it has ended."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)

    def adopt(self, pid: int) -> None:
        """Take on a process that was just started; called in the thread."""
        self._children.add(pid)
        if self._over:
            self.kill_children()

    def release(self, pid: int) -> None:
        """Forget a process that is about to be reaped; called in the thread."""
        self._children.discard(pid)

    def kill_children(self) -> None:
        """Kill what was started and has not ended, and whatever will be started; called in the thread."""
        self._over = True
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the thread, and all that it has started and nobody has ended."""
        if not self.loop.is_closed():
            self.post(self.kill_children)
            self.post(self.loop.stop)
            self._thread.join(timeout=10)
