"""A bell that other processes ring: a FIFO, for poll() or with a listener."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path


class Bell:
    """A bell at ``path``, to be waited for with poll() on its ``fileno()``; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path, 0o600)
        # For writing, too: otherwise it would be at its end when somebody has rung.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return its descriptor, readable when it has been rung."""
        return self._descriptor

    def silence(self) -> None:
        """Let it be as if nobody had rung."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 4096):
                pass

    def close(self) -> None:
        """Take it away."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


def ring(path: Path) -> None:
    """Ring a bell, if it is there and somebody listens; raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.ENXIO:  # whoever listened has been killed
            return
        raise
    try:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            os.write(descriptor, b"!")
    finally:
        os.close(descriptor)


class Listener:
    """Calls a function whenever a bell is rung, in a thread of its own, and takes the bell away when it is closed."""

    def __init__(self, bell: Bell, call: Callable[[], None]) -> None:
        self._bell = bell
        self._call = call
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="pytest-kvm-bell", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while not any(descriptor == self._end for descriptor, _ in poll.poll()):
            self._bell.silence()
            self._call()

    def close(self) -> None:
        """End it; the function is not called any more then."""
        os.eventfd_write(self._end, 1)
        self._thread.join()
        os.close(self._end)
        self._bell.close()
