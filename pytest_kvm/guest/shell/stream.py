"""A guest command's stdout or stderr: filled by the I/O thread, read by the test."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_kvm.guest.result import OUTPUT_LIMIT
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Stream(io.RawIOBase):
    """Bytes up to an end mark, of which nothing is ever shown, nor of what follows it.

    It is ``full`` when as much is there as is kept; whoever feeds it is to wait then, and told when somebody has read.
    ``keep=False`` drops all but the news of the end.
    """

    def __init__(self, end: bytes, watch: Watch, *, keep: bool = True) -> None:
        super().__init__()
        self._limit = OUTPUT_LIMIT if keep else 0
        self._dropping = not keep
        self._end = end
        self._watch = watch
        self._data = bytearray()
        self._searched = 0
        self._tell: Callable[[], object] | None = None
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
            if self._dropping:
                self._drop_excess()
            self._watch.notify()

    def _drop_excess(self) -> None:
        # What may be the beginning of the mark stays as long as that is not known.
        held = 0 if self.complete else len(self._end) - 1
        if len(self._data) > self._limit + held:
            del self._data[self._limit : len(self._data) - held]
            self._searched = len(self._data)

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return not self.complete and not self._dropping and len(self._data) >= self._limit

    def when_room(self, tell: Callable[[], object]) -> None:
        """Call ``tell``, in any thread, when there is room; at once if there is."""
        with self._watch:
            self._tell = tell
            self._tell_room()

    def _tell_room(self) -> None:
        if self._tell is not None and not self.full:
            tell, self._tell = self._tell, None
            tell()

    def drop(self) -> None:
        """Drop from now on what there is no room for: nobody will read it."""
        with self._watch:
            self._dropping = True
            self._tell_room()

    def abandon(self) -> None:
        """Nothing more will come: what is there is all."""
        with self._watch:
            self.complete = True
            self._tell_room()
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
        with memoryview(self._data) as view:
            data = bytes(view[:length])
        del self._data[:length]
        self._searched = max(0, self._searched - length)
        self._tell_room()
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
