"""One call of a verb: what is wrong with it, in a line, and qemu-img run for it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from pytest_kvm.errors import QemuImgError, QEMUNotFound, SpecError
from pytest_kvm.files import why_no_folder, why_unreadable
from pytest_kvm.images.progress import fraction_bar, megabytes
from pytest_kvm.images.qemu_img import Done, find_qemu_img, run
from pytest_kvm.qemu.binary import locate
from pytest_kvm.qemu.process import describe_end
from pytest_kvm.spec.values import boolean
from pytest_kvm.spec.values import path as check_path
from pytest_kvm.spec.wording import about, expected_type, shown

PathLike = str | os.PathLike[str]
Progress = Callable[[float], object] | bool
"""Is told a fraction from 0 to 1; True: a bar on a terminal."""

_IN_USE = re.compile(r"Is another process using the image \[(.*)\]\?", re.DOTALL)
_FIRST_LINES = 3  # of what qemu-img says: all of it is in the error's ``stderr``


class Call:
    """A call of ``verb`` about ``file``; its errors begin with ``images.verb('file')``.

    With ``needed=False`` it may be about no file.
    """

    def __init__(self, verb: str, file: PathLike | None, qemu: str | None, *, needed: bool = True) -> None:
        self.verb = verb
        self._file = ""
        self.path = self.place("path", file) if file is not None or needed else Path.cwd()
        self._file = f"{str(self.path)!r}, " if file is not None else ""
        self._qemu = qemu

    def place(self, keyword: str, file: PathLike | None) -> Path:
        """Return where a file is; raises SpecError for what is no path."""
        with self.argument(keyword, file):
            check_path(file)
        # Absolute, no part of a name is a protocol or an option for QEMU (path_has_protocol in block.c).
        return Path(file or "").absolute()

    def argument(self, keyword: str, value: object) -> AbstractContextManager[None]:
        """Turn a rejection inside the block into a SpecError about one argument."""
        return about(f"images.{self.verb}({self._file}{keyword}={shown(value)})", keyword=keyword, value=value)

    def rejected(self, reason: object) -> SpecError:
        """Return the error that says what cannot be done with the file, before anything was done."""
        return SpecError(f"{self._subject}: {reason}", keyword="path", value=self.path)

    @property
    def _subject(self) -> str:
        return f"images.{self.verb}({self._file.removesuffix(', ')})"

    def existing(self, file: Path, what: str = "", *, written: bool = False) -> None:
        """Refuse a file that cannot be opened; ``what`` says what it is to the verb, if it is not its subject."""
        reason = why_unreadable(file)
        if reason is None and not (file.is_file() or file.is_block_device()):
            reason = "it is neither a file nor a block device"
        if reason is None and written and not os.access(file, os.W_OK):
            reason = "no permission to write it"
        if reason is not None:
            raise self.rejected(f"{what} {str(file)!r}: {reason}" if what else reason)

    def folder(self, folder: Path) -> None:
        """Refuse a folder in which no file can be made."""
        reason = why_no_folder(folder)
        if reason is None and not os.access(folder, os.W_OK):
            reason = "no permission to write into it"
        if reason is not None:
            raise self.rejected(f"its folder, {str(folder)!r}: {reason}")

    def flags(self, **given: object) -> None:
        """Refuse what should be True or False, and is neither."""
        for keyword, value in given.items():
            with self.argument(keyword, value):
                boolean(value)

    def run(
        self,
        *arguments: str,
        progress: Progress = False,
        good: Collection[int] = (0,),
        shareable: bool = False,
        aliases: Mapping[Path, Path] | None = None,
        written: Path | None = None,
    ) -> Done:
        """Run ``qemu-img VERB ARGUMENTS`` to its end.

        ``good`` are the statuses that are none of failure, ``shareable`` is whether there is ``force_share`` for
        images in use, ``aliases`` are files by other names than the user knows, ``written`` is what is written to
        (default: the file). Raises QemuImgError, HostError.
        """
        command = [self._program(), *arguments]
        if progress is True:
            with fraction_bar(f"{self.verb} {self.path.name}") as show:
                done = run(command, show)
        else:
            done = run(command, progress or None)
        if done.returncode not in good:
            raise self._failed(done, shareable=shareable, aliases=aliases or {}, written=written or self.path)
        return done

    def reporting(self, progress: object) -> list[str]:
        """Return the option for progress; raises SpecError for what cannot be told it."""
        with self.argument("progress", progress):
            if not isinstance(progress, bool) and not callable(progress):
                raise expected_type("True, False, or a function of a fraction", progress)
        return ["-p"] if progress else []

    def _program(self) -> str:
        try:
            qemu: Path | None = locate(self._qemu)
        except QEMUNotFound:
            if self._qemu is not None:
                raise QEMUNotFound(
                    f"{self._subject}: qemu={shown(self._qemu)}: no such executable",
                    hint="give a path, or a name on PATH; without qemu= the usual one is looked for",
                ) from None
            qemu = None  # qemu-img alone will do
        return find_qemu_img(qemu, "pytest_kvm.images needs")

    def _failed(self, done: Done, *, shareable: bool, aliases: Mapping[Path, Path], written: Path) -> QemuImgError:
        error = QemuImgError("", returncode=done.returncode, stderr=done.stderr, command=done.command)
        text = done.stderr
        for file, name in aliases.items():
            text = text.replace(str(file), str(name))
        if error.in_use:
            return self._in_use(error, text, shareable=shareable)
        if error.nospace:
            return self.no_room(written, error)
        if done.returncode < 0:
            return self._told(error, f"qemu-img {describe_end(done.returncode)}")
        return self._told(error, f"qemu-img refuses: {_shortened(text, self.path)}{self._hint(text)}")

    def _in_use(self, error: QemuImgError, text: str, *, shareable: bool) -> QemuImgError:
        named = _IN_USE.search(text)
        which = f"{named[1]!r}, which it consists of," if named and named[1] != str(self.path) else "it"
        hint = ", or read it as it is at this moment: force_share=True" if shareable else ""
        return self._told(
            error, f"{which} is open in a running machine, or in another process; end that first (vm.shutdown()){hint}"
        )

    def no_room(self, written: Path, error: QemuImgError | None = None) -> QemuImgError:
        """Return the error that says that there is no room for what would be written."""
        error = error or QemuImgError("", returncode=None, stderr=os.strerror(errno.ENOSPC))
        try:
            free = os.statvfs(written.parent).f_bavail * os.statvfs(written.parent).f_frsize
        except OSError:
            free = 0
        return self._told(
            error,
            f"{os.strerror(errno.ENOSPC)}: {megabytes(free)} are free in {str(written.parent)!r}; make room, "
            "or write elsewhere",
        )

    def in_use(self, file: Path) -> QemuImgError:
        """Return the error that says that a file which would be replaced is open in a machine."""
        said = f'Failed to get "write" lock\nIs another process using the image [{file}]?'
        return self._in_use(QemuImgError("", returncode=None, stderr=said), said, shareable=False)

    def failed(self, error: OSError, written: Path) -> QemuImgError:
        """Return what an error of the operating system is to the user."""
        if error.errno == errno.ENOSPC:
            return self.no_room(written)
        said = f"{str(written)!r}: {error.strerror}"
        return self._told(QemuImgError("", returncode=None, stderr=said), f"it cannot be written: {said}")

    @staticmethod
    def _hint(text: str) -> str:
        damaged = "corrupt" in text.lower() or "need to rebuild refcount structures" in text
        return "; images.check(…, repair='all') tries to mend it" if damaged else ""

    def _told(self, error: QemuImgError, reason: str) -> QemuImgError:
        return QemuImgError(
            f"{self._subject}: {reason}", returncode=error.returncode, stderr=error.stderr, command=error.command
        )


def _shortened(text: str, path: Path) -> str:
    """Return the first lines of what qemu-img says in one, without what is known anyway."""
    for noise in (f"Could not open '{path}': ", f"{path}: "):
        text = text.replace(noise, "")
    lines = [line.removeprefix("qemu-img: ").strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    more = f" … and {len(lines) - _FIRST_LINES} lines more" if len(lines) > _FIRST_LINES else ""
    return "; ".join(lines[:_FIRST_LINES]) + more if lines else "it does not say why"
