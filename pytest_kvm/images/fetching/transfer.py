"""Bring a file from one address to its place: from where the last attempt ended, and verified."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.partial import Origin, Partial
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.request import Answer, RequestFailed, ask, shown
from pytest_kvm.images.fetching.retry import insist
from pytest_kvm.images.progress import Report, download_bar, megabytes

_ROOM_HINT = "free some, or set PYTEST_KVM_CACHE to a directory on a larger disk"
_DIRECTORY_HINT = "set PYTEST_KVM_CACHE to a directory that you may write"
_CONTENT_RANGE = re.compile(r"bytes (?P<start>[0-9]{1,18})-[0-9]{1,18}/(?P<total>[0-9]{1,18}|\*)")


@dataclass
class Transfer:
    """The parameters of `web.download`, with one address."""

    url: str
    partial: Partial
    checksum: Checksum | None
    publisher: str
    limit: int | None
    report: Report
    show: Callable[[int], None] | None
    room: Callable[[Path], int]
    patience: Patience
    # Whether what is there came in more than one answer.
    _resumed: bool = False

    def run(self) -> None:
        """Bring the file. Raises RequestFailed, and ImageUnavailable when no other address would help."""
        try:
            self._bring()
            self.partial.finish()
        except OSError as error:  # of the file: those of the network are RequestFailed
            full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
            if full:
                self.partial.clear()
            raise ImageUnavailable(
                f"{shown(self.url)} cannot be written to {self._directory}: {error.strerror or error}",
                hint=_ROOM_HINT if full else _DIRECTORY_HINT,
            ) from error

    @property
    def _directory(self) -> Path:
        return self.partial.path.parent

    def _bring(self) -> None:
        """Receive the whole file, and compare its checksum."""
        while True:
            self._resumed = False
            insist(self._attempt, self.patience, report=self.report, size=lambda: self.partial.size)
            if self.checksum is None:
                return
            found = Checksum.of_file(self.checksum.kind, self.partial.path)
            if found == self.checksum:
                return
            self.partial.clear()
            expected = f"{self.checksum.title} {self.checksum.hex}"
            wrong = not_announced(self.url, self.publisher, expected, found.hex)
            if not self._resumed:
                raise wrong
            # These may be parts of two files: whether the one that is there now is good nobody knows yet.
            self.report(f"{wrong}; fetching it again from its beginning")

    def _attempt(self) -> None:
        offset, origin = 0, self.partial.origin()
        if origin is not None and origin.url == self.url and origin.validator:
            offset = self.partial.size
        headers = {}
        if origin is not None and offset:
            if offset == origin.total:
                self._resumed = True
                return
            headers = {"Range": f"bytes={offset}-", "If-Range": origin.validator}
        try:
            with ask(self.url, headers=headers, silence=self.patience.silence) as answer:
                self._receive(answer, offset, origin)
        except RequestFailed as error:
            if error.status == 416:  # what is there is longer than the file
                raise self._does_not_continue(offset) from error
            raise

    def _receive(self, answer: Answer, offset: int, origin: Origin | None) -> None:
        """Write an answer's body behind the ``offset`` bytes that are there, or in place of them."""
        if answer.status == 206:
            part = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            total = int(part["total"]) if part is not None and part["total"] != "*" else None
            same = not offset or origin is None or origin.total == total
            if part is None or int(part["start"]) != offset or not same:
                raise self._does_not_continue(offset)
        else:
            offset, total = 0, answer.length
        self._check_size(total or 0)
        self._check_room(offset, total)
        if offset:
            self._resumed = True
        else:
            self.partial.begin(Origin(self.url, _validator(answer), total))
        self._announce(offset, total)
        self._write(answer, offset, total)

    def _write(self, answer: Answer, offset: int, total: int | None) -> None:
        size = offset
        bar = nullcontext(self.show) if self.show else download_bar(total, start=offset, report=self.report)
        with self.partial.append() as file, bar as show:
            for chunk in answer.chunks():
                size += len(chunk)
                self._check_size(size)
                file.write(chunk)
                file.flush()
                show(size)
        if total is not None and size != total:
            raise RequestFailed(self.url, f"cannot be fetched: the server sent {size} of {total} bytes", transient=True)

    def _check_size(self, size: int) -> None:
        if self.limit is not None and size > self.limit:
            self.partial.clear()
            raise not_announced(self.url, self.publisher, f"at most {self.limit} bytes", "more")

    def _check_room(self, offset: int, total: int | None) -> None:
        if total is None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What is there is written over if the file begins anew.
        free = self.room(self._directory) + (0 if offset else self.partial.size)
        if total - offset > free:
            raise ImageUnavailable(
                f"{shown(self.url)} does not fit into {self._directory}:"
                f" it needs {megabytes(total - offset)}, {megabytes(free)} are free",
                hint=_ROOM_HINT,
            )

    def _announce(self, offset: int, total: int | None) -> None:
        size = megabytes(total) if total is not None else "of unknown size"
        here = f", {megabytes(offset)} are here already" if offset else ""
        self.report(f"downloading {shown(self.url)} ({size}{here})")

    def _does_not_continue(self, offset: int) -> RequestFailed:
        self.partial.clear()
        return RequestFailed(
            self.url, f"cannot be fetched: the server does not continue at byte {offset}", transient=True
        )


def not_announced(url: str, publisher: str, expected: str, found: str) -> RequestFailed:
    """Return the failure of a server that sends something else."""
    return RequestFailed(url, f"is not what the {publisher} announces: expected {expected}, got {found}")


def _validator(answer: Answer) -> str:
    """Return what If-Range can tell this version of a file by, "" if the server offers nothing (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
