"""The disks that were fetched: each brought once, by one process, and never handed out when it has changed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.host.remembering import file_identity
from pytest_kvm.images.fetching.checksum import Checksum, find_checksum
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.records import Place, Record
from pytest_kvm.images.fetching.source import Source
from pytest_kvm.images.progress import Report, say_nothing

_LIST_LIMIT = 4 * 1024 * 1024  # bytes of a publisher's list of checksums
_WAIT = 1800.0  # seconds that another process may take for a file before we stop waiting for it
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_DEFAULT = Patience()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is kept of an image.

    As long as there is no more than a part, ``record`` and ``path`` are None, and ``name`` is the folder's (``remove``
    takes that, too). ``size`` is the file's and ``partial`` that of what was not fetched to its end, in bytes; ``time``
    is when the file was fetched, or the part last grew, in seconds since 1970. ``trouble`` says in one line what is
    wrong with the file.
    """

    name: str
    record: Record | None
    path: Path | None
    size: int
    partial: int
    time: float
    trouble: str = ""


class Downloads:
    """The store of fetched files in ``directory``; any number of processes may use it.

    ``offline`` forbids downloads, ``report`` is told what takes time, ``patience`` is for web servers, ``wait`` for
    another process that fetches the same image, in seconds. Whatever cannot be had, read or written raises
    ImageUnavailable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        offline: bool = False,
        report: Report = say_nothing,
        patience: Patience = _DEFAULT,
        wait: float = _WAIT,
    ) -> None:
        self._directory = directory
        self._offline = offline
        self._report = report
        self._patience = patience
        self._wait = wait

    def get(self, name: str, source: Source) -> Path:
        """Return where the image's file is, which is fetched if it is not there, or not the one that is asked for.

        One that is there costs a look at its times only. Raises SpecError when another image has the same place.
        """
        place = Place(self._directory, name)
        with self._explained(place):
            record = self._known(place)
            if record is not None and record.answers(source) and place.untouched(record):
                return place.file(record)
            if self._offline and not (place.folder / source.filename).exists():
                raise self._forbidden(name)
            try:
                with self._alone(place):
                    self._settle(place, source)
            except OSError as error:
                if error.errno not in _READ_ONLY or record is None or not record.answers(source):
                    raise
                place.check(record)  # each time: nothing can be remembered in a cache that others fill
            return place.folder / source.filename

    def pull(self, name: str, source: Source) -> bool:
        """Ask the publisher again, and replace a file that is not what he offers now; return whether one was fetched.

        The old file stays valid for those who have it open.
        """
        place = Place(self._directory, name)
        with self._explained(place):
            if self._offline:
                raise self._forbidden(name)
            with self._alone(place):
                return self._bring(place, source, self._known(place))

    def verify(self, name: str) -> Path:
        """Read the image's whole file, and return where it is when it is the one that was fetched."""
        place = Place(self._directory, name)
        with self._explained(place):
            record = place.record()
            if record is None:
                raise self._absent(name)
            try:
                with self._alone(place):
                    record = place.record()
                    if record is None:
                        raise self._absent(name)
                    place.keep(place.check(record, thorough=True))
            except OSError as error:
                if error.errno not in _READ_ONLY or record is None:
                    raise
                place.check(record, thorough=True)
            return place.file(record)

    def remove(self, name: str) -> int:
        """Remove all that is kept of an image; return how many bytes that were. Open files stay valid."""
        place = Place(self._directory, name)
        with self._explained(place):
            if not place.folder.is_dir():
                return 0
            with self._alone(place, wait=False):
                size = sum(path.lstat().st_size for path in place.files())
                place.forget()
                shutil.rmtree(place.folder)
                return size

    def path(self, name: str) -> Path | None:
        """Return where the image's file is, None if there is none; whether it was changed is not looked at."""
        place = Place(self._directory, name)
        with self._explained(place):
            record = place.record()
            return place.file(record) if record is not None else None

    def entries(self) -> list[Entry]:
        """Return what is kept, by name; a file that was touched since it was fetched is read."""
        try:
            folders = sorted(path for path in self._directory.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ImageUnavailable(f"the images in {self._directory} cannot be listed: {error.strerror}") from error
        found = []
        for folder in folders:
            with contextlib.suppress(OSError):  # removed meanwhile, or another user's
                found.append(_entry(Place(self._directory, folder.name)))
        return sorted(found, key=lambda entry: entry.name)

    def _known(self, place: Place) -> Record | None:
        record = place.record()
        if record is not None and record.name != place.name:
            raise SpecError(
                f"images {record.name!r} and {place.name!r} would have the same folder, {place.folder}:"
                f" give one another name, or remove the former ('pytest-kvm images remove {record.name}')",
                keyword="image",
                value=place.name,
            )
        return record

    def _settle(self, place: Place, source: Source) -> None:
        """Have the file in its place, and the record fit it; the caller holds the lock."""
        record = self._known(place)
        if record is None or not record.answers(source):
            self._bring(place, source, record)
            return
        checked = place.check(record)
        if checked != record:
            with contextlib.suppress(OSError):  # then it is read again next time
                place.keep(checked)

    def _bring(self, place: Place, source: Source, record: Record | None) -> bool:
        """Have the file that the publisher offers in its place; return whether it was fetched."""
        checksum = source.checksum or self._published(place.name, source)
        path = place.folder / source.filename
        url, fetched = (record.url, record.fetched) if record is not None else (source.urls[0], time.time())
        present = path.is_file() and Checksum.of_file(checksum.kind, path) == checksum
        if not present:
            url, fetched = self._download(place, source, checksum), time.time()
            # Should we be killed before the new record is written, the file is known by its checksum.
            place.forget()
            os.replace(place.incoming / source.filename, path)
        identity = file_identity(path)
        sha256 = checksum if checksum.kind == "sha256" else Checksum.of_file("sha256", path)
        made = Record(
            name=place.name,
            url=url,
            checksum=checksum,
            checksum_url=source.checksum_url if source.checksum is None else None,
            sha256=sha256.hex,
            filename=source.filename,
            size=path.stat().st_size,
            fetched=fetched,
            identity=identity,
        )
        place.keep(made)
        place.tidy(made)
        return not present

    def _download(self, place: Place, source: Source, checksum: Checksum) -> str:
        if self._offline:
            raise self._forbidden(place.name)
        from pytest_kvm.images.fetching.web import download

        into = place.incoming / source.filename
        return download(source.urls, into, checksum=checksum, report=self._report, patience=self._patience)

    def _published(self, name: str, source: Source) -> Checksum:
        """Return the checksum that the publisher announces now."""
        if self._offline:
            raise self._forbidden(name)
        from pytest_kvm.images.fetching.web import read

        assert source.checksum_url is not None  # Source saw to that
        listed = read(source.checksum_url, _LIST_LIMIT, patience=self._patience)
        return find_checksum(listed.decode(errors="replace"), source.filename, origin=source.checksum_url)

    @contextlib.contextmanager
    def _alone(self, place: Place, *, wait: bool = True) -> Iterator[None]:
        """Let nobody else change the image's files inside the block."""
        import filelock

        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = filelock.FileLock(place.lock, mode=0o600)
        limit = self._wait if wait else 0.0
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if wait:
                self._report(f"waiting for another process that fetches image {place.name!r} ({limit:g} s at most)")
            try:
                lock.acquire(timeout=limit)
            except filelock.Timeout:
                raise ImageUnavailable(
                    f"image {place.name!r} is in use: another process has been fetching it"
                    f"{f' for {limit:g} s' if wait else ''}",
                    hint=f"try again when it has ended; it holds the lock {place.lock}",
                ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _explained(self, place: Place) -> Iterator[None]:
        """Say what an OSError means for the image."""
        try:
            yield
        except OSError as error:
            raise ImageUnavailable(
                f"image {place.name!r} cannot be kept in {self._directory}: {error.strerror or error}",
                hint="set PYTEST_KVM_CACHE to a directory that you may write, with room for it",
            ) from error

    def _forbidden(self, name: str) -> ImageUnavailable:
        return ImageUnavailable(
            f"image {name!r} is not in {self._directory}, and --kvm-offline forbids downloads",
            hint=f"fetch it with 'pytest-kvm images pull {name}', or run once without --kvm-offline",
        )

    def _absent(self, name: str) -> ImageUnavailable:
        return ImageUnavailable(
            f"image {name!r} is not in {self._directory}", hint=f"fetch it with 'pytest-kvm images pull {name}'"
        )


def _entry(place: Place) -> Entry:
    record = place.record()
    path = place.file(record) if record is not None else None
    trouble = ""
    if record is not None:
        try:
            place.check(record)
        except ImageUnavailable as error:
            trouble = str(error).partition("\n")[0]
    parts = [other.stat() for other in place.files() if other != path]
    return Entry(
        name=record.name if record is not None else place.name,
        record=record,
        path=path,
        size=path.stat().st_size if path is not None else 0,
        partial=sum(part.st_size for part in parts),
        time=record.fetched if record is not None else max((part.st_mtime for part in parts), default=0.0),
        trouble=trouble,
    )
