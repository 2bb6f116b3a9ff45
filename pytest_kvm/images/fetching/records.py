"""What is remembered of a fetched file, and whether the file is still that one."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.files import write_atomically
from pytest_kvm.host.remembering import file_identity
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.source import Source

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]|^\.")
_RECORD = ".record.json"
_INCOMING = ".incoming"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file that was fetched for the image ``name``, from ``url``.

    ``checksum`` is the publisher's, from ``checksum_url`` unless that is None; ``sha256`` are hex digits, ``size`` are
    bytes. ``fetched`` is the time, in seconds since 1970; ``identity`` changes whenever the file may have changed.
    """

    name: str
    url: str
    checksum: Checksum
    checksum_url: str | None
    sha256: str
    filename: str
    size: int
    fetched: float
    identity: str

    def answers(self, source: Source) -> bool:
        """Return whether it is what a source asks for."""
        if self.filename != source.filename:
            return False
        if source.checksum is not None:
            return source.checksum in {self.checksum, Checksum("sha256", self.sha256)}
        return self.checksum_url == source.checksum_url


def _check(record: Record) -> None:
    """Raise TypeError for a record whose fields are not what they should be."""
    for name in ("name", "url", "sha256", "filename", "identity"):
        if not isinstance(getattr(record, name), str):
            raise TypeError(name)
    if not isinstance(record.size, int) or not isinstance(record.fetched, (int, float)):
        raise TypeError("size, fetched")
    if not math.isfinite(record.fetched) or "\0" in record.filename:
        raise ValueError("fetched, filename")


class Place:
    """The folder that an image has to itself below ``directory``. What is not said otherwise raises OSError."""

    def __init__(self, directory: Path, name: str) -> None:
        if not name:
            raise SpecError("an image to be fetched must have a name", keyword="image", value=name)
        self.name = name
        safe = _UNSAFE.sub("-", name)
        self.folder = directory / safe
        self.lock = directory / f".{safe}.lock"
        self.incoming = self.folder / _INCOMING

    def record(self) -> Record | None:
        """Return what is remembered, None if there is nothing, or its file is gone."""
        try:
            stored = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            record = Record(**{**stored, "checksum": Checksum.parse(stored["checksum"])})
            _check(record)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # written by another version of this package, perhaps: the file itself will tell
        return record if self.file(record).is_file() else None

    def file(self, record: Record) -> Path:
        """Return where a record's file is."""
        return self.folder / Path(record.filename).name

    def keep(self, record: Record) -> None:
        """Remember a file, which is in its place."""
        write_atomically(
            self.folder / _RECORD, json.dumps({**asdict(record), "checksum": str(record.checksum)}).encode()
        )

    def forget(self) -> None:
        """Remember nothing."""
        (self.folder / _RECORD).unlink(missing_ok=True)

    def untouched(self, record: Record) -> bool:
        """Return whether the file is certainly the one that was fetched; it is not read."""
        try:
            return file_identity(self.file(record)) == record.identity
        except FileNotFoundError:  # in this moment
            return False

    def check(self, record: Record, *, thorough: bool = False) -> Record:
        """Return the record, which fits the file again; the file is read if it was touched, or if ``thorough``.

        Raises ImageUnavailable if it is another one.
        """
        path = self.file(record)
        identity = file_identity(path)
        if identity == record.identity and not thorough:
            return record
        size = path.stat().st_size
        found = Checksum.of_file("sha256", path).hex if size == record.size else ""
        if found == record.sha256:
            return replace(record, identity=identity)
        day = time.strftime("%Y-%m-%d", time.localtime(record.fetched))
        change = f"SHA-256 {record.sha256} then, {found} now" if found else f"{record.size} bytes then, {size} now"
        raise ImageUnavailable(
            f"image {record.name!r}: {path} was changed or damaged since it was fetched on {day} ({change})",
            hint=f"'pytest-kvm images pull {record.name}' fetches it again",
        )

    def files(self) -> Iterator[Path]:
        """Yield all that is there but the record."""
        for path in self.folder.rglob("*"):
            if path.name != _RECORD and not path.is_dir():
                yield path

    def tidy(self, record: Record) -> None:
        """Remove what is neither the record nor its file, as far as that is possible; open files stay valid."""
        shutil.rmtree(self.incoming, ignore_errors=True)
        for path in self.files():
            if path != self.file(record):
                with contextlib.suppress(OSError):
                    path.unlink()
