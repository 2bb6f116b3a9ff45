"""What was said and done, one JSON object a line: bounded, and in nobody's way."""

from __future__ import annotations

import collections
import contextlib
import datetime
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

# Bytes that a journal's files take at most; of more than that, the end is what is kept.
LIMIT = 4 << 20
# Characters of a record: in a longer one, what is long is cut.
_LINE = 16 << 10
_CUT = 1 << 10
_REMEMBERED = 20

Record = Mapping[str, object]


class Journal:
    """Records in the file ``path``, each with the host's time; usable from any thread.

    The file is made with the first one. When half of ``limit`` bytes are in it, it becomes ``older``, whose place it
    takes. Trouble with it, such as a full disk, is in ``trouble``, and never the trouble of who adds something.
    """

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self.path = path
        self.older = path.with_name(f"{path.name}.older")
        # How many were added.
        self.count = 0
        self.trouble = ""
        self._half = limit // 2
        self._size = 0
        self._last: collections.deque[Record] = collections.deque(maxlen=_REMEMBERED)
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        """Add a record; what is no JSON becomes text. Dropped when the journal is closed."""
        dated = {"time": now(), **record}
        line = f"{_json(dated)}\n".encode()
        with self._lock:
            if self._closed:
                return
            self.count += 1
            self._last.append(dated)
            try:
                self._write(line)
            except OSError as error:
                self.trouble = f"{self.path.name}: {error.strerror}"

    def _write(self, line: bytes) -> None:
        if self._file is not None and self._size + len(line) > self._half:
            os.replace(self.path, self.older)
            self._file.close()
            self._file = None
        if self._file is None:
            # Unbuffered: whoever looks into it while a test hangs sees all of it.
            self._file, self._size = self.path.open("wb", buffering=0), 0
        self._file.write(line)
        self._size += len(line)

    def last(self, number: int = _REMEMBERED) -> list[Record]:
        """Return the last records, 20 at most, the oldest of them first."""
        with self._lock:
            return list(self._last)[-number:] if number else []

    def close(self) -> None:
        """Take no more records; the files stay."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()


def now() -> str:
    """Return the time as in all journals: ISO 8601, the host's zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="microseconds")


def _json(record: Record) -> str:
    try:
        text = json.dumps(record, default=repr)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a loop
        record = {key: repr(value) for key, value in record.items()}
        text = json.dumps(record)
    if len(text) <= _LINE:
        return text
    return json.dumps({key: _shortened(value) for key, value in record.items()}, default=repr)


def _shortened(value: object) -> object:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return value if len(text) <= _CUT else f"{text[:_CUT]}… ({len(text)} characters)"
