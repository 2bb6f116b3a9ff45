"""A guest command's stdout or stderr: filled by the I/O thread, read by the test."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Stream(io.RawIOBase):
    """Bytes up to an end mark, of which nothing is ever shown, nor of what follows it.

    ``keep=False`` drops all but the news of the end.
    """

    def __init__(self, end: bytes, watch: Watch, *, keep: bool = True) -> None:
        super().__init__()
        self._keep = keep
        self._end = end
        self._watch = watch
        self._data = bytearray()
        self._searched = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Take what arrived from the guest."""
        with self._watch:
            if self.complete:
                return
            self._data += data
            found = self._data.find(self._end, max(0, self._searched - len(self._end) + 1))
            self._searched = len(self._data)
            if found >= 0:
                del self._data[found:]
                self.complete = True
            if not self._keep:
                self._take(max(0, len(self._data) - len(self._end)))
            self._watch.notify()

    def abandon(self) -> None:
        """Nothing more will come: what is there is all."""
        with self._watch:
            self.complete = True
            self._watch.notify()

    def _ready(self) -> int:
        """Return how many bytes may be read: a beginning of the mark may still become the mark."""
        if self.complete:
            return len(self._data)
        for length in range(min(len(self._end) - 1, len(self._data)), 0, -1):
            if self._data.endswith(self._end[:length]):
                return len(self._data) - length
        return len(self._data)

    def everything(self) -> bytes:
        """Return all that has arrived so far and was not read."""
        with self._watch:
            return self._take(self._ready())

    def _take(self, length: int) -> bytes:
        data = bytes(self._data[:length])
        del self._data[:length]
        self._searched = max(0, self._searched - length)
        return data

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what is there; wait while there is nothing and more may come."""
        view = memoryview(buffer).cast("B")
        with self._watch:
            self._watch.wait_for(lambda: self.complete or self._ready() > 0, Deadline(None))
            data = self._take(min(self._ready(), len(view)))
        view[: len(data)] = data
        return len(data)
