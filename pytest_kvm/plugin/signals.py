"""SIGTERM and SIGHUP end a session with machines in good order, as Ctrl-C does; a worker, when its controller dies.

Without that, Python dies of them at once: the kernel ends QEMU then, but files and reports are lost.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvm.machine.launcher import Launcher
    from pytest_kvm.qemu.iothread import IOThread

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# A worker without a controller has so many seconds to end its machines in good order.
_PATIENCE = 1.0


class Terminated(KeyboardInterrupt):
    """A signal ends the session."""


# pytest shows no frame of this module in tracebacks: its wrappers are around everybody's tests.
__tracebackhide__ = True


class Signals:
    """What signals do to a session: nothing else than ever until there is a machine."""

    def __init__(self, config: pytest.Config) -> None:
        # Who wants a debugger wants no exception that leads into it.
        self._wanted = not config.getoption("usepdb")
        self._controller = os.getppid() if hasattr(config, "workerinput") else None
        self._handled: list[signal.Signals] = []
        self._received: signal.Signals | None = None
        self._ending = False

    def heed(self) -> None:
        """Let the signals end the session in good order from now on, unless somebody else handles them."""
        if self._wanted and not self._handled and threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if _is_default(number):
                    signal.signal(number, self._receive)
                    self._handled.append(number)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._restore()  # a second one ends us at once
        self._received = signal.Signals(number)
        if not self._ending:
            raise Terminated(self._received.name)

    def _restore(self) -> None:
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        self._handled.clear()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Let nothing interrupt a teardown, pytest would pass over what is left of it; the session ends then."""
        self._ending = True
        try:
            return (yield)
        finally:
            self._ending = False
            if self._received is not None:
                item.session.shouldstop = self._received.name

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """The same for the session's."""
        self._ending = True

    def finish(self, session: pytest.Session) -> None:
        """End the session as a signal does that has come: called when all is tidied up."""
        self._restore()
        if self._received is None:
            return
        if self._controller is not None:
            # The controller, if it lives, replaces a worker that has died; it has no word for one that was ended.
            os.kill(os.getpid(), self._received)
        session.exitstatus = 128 + self._received

    def follow_controller(self, launcher: Launcher) -> None:
        """Let a worker end when its controller has died, in good order, and its machines in any case."""
        if self._controller is not None:
            launcher.io().call(self._watch, launcher.io(), self._controller)

    def _watch(self, io: IOThread, controller: int) -> None:
        try:
            process = os.pidfd_open(controller)
        except ProcessLookupError:
            self._orphaned(io)
            return
        io.loop.add_reader(process, self._orphaned, io, process)
        if os.getppid() != controller:  # it had died before, and the number may be another's
            self._orphaned(io, process)

    def _orphaned(self, io: IOThread, process: int | None = None) -> None:
        if process is not None:
            io.loop.remove_reader(process)
            os.close(process)
        io.loop.call_later(_PATIENCE, io.kill_children)
        if signal.SIGTERM in self._handled:
            # To the main thread itself, which may wait for something.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


SIGNALS = pytest.StashKey[Signals]()


def _is_default(number: signal.Signals) -> bool:
    """Return whether nobody handles a signal or ignores it, in C neither, as faulthandler does (proc(5))."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        return False
    status = Path("/proc/self/status").read_text()
    masks = [int(mask, 16) for mask in re.findall(r"^Sig(?:Cgt|Ign):\s*(\w+)$", status, re.MULTILINE)]
    return not any(mask >> (number - 1) & 1 for mask in masks)
