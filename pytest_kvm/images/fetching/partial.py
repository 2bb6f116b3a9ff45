"""The part of a file that was received so far, kept beside its place, for the next download to go on with."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pytest_kvm.files import write_atomically


@dataclass(frozen=True)
class Origin:
    """Where a part came from: the address, what told its version from others, bytes of the whole (None: unknown)."""

    url: str
    validator: str
    total: int | None


class Partial:
    """The part of the file that is to be ``into`` one day. Everything raises OSError."""

    def __init__(self, into: Path) -> None:
        self._into = into
        self.path = into.with_name(f"{into.name}.partial")
        self._memory = into.with_name(f"{into.name}.partial.json")

    @property
    def size(self) -> int:
        """The bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """Return where the part came from, None if there is none, or nobody knows."""
        if not self.size:
            return None
        try:
            origin = Origin(**json.loads(self._memory.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None  # killed before it was written, or another version's
        good = (
            isinstance(origin.url, str) and isinstance(origin.validator, str) and isinstance(origin.total, int | None)
        )
        return origin if good else None

    def begin(self, origin: Origin) -> None:
        """Forget what there is: another file begins, or the same one anew."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        write_atomically(self._memory, json.dumps(asdict(origin)).encode())

    def append(self) -> BinaryIO:
        """Open the part for more."""
        return self.path.open("ab")

    def finish(self) -> None:
        """Put the file, which is complete, in its place."""
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())  # after a crash the name must not stand for something else
        os.replace(self.path, self._into)
        self._memory.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the part, as far as that is possible."""
        for path in (self.path, self._memory):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
