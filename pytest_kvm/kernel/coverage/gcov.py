"""From counters to counts of lines: gcov reads them, with the notes that the compiler left in the build tree."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pytest_kvm.errors import HostError
from pytest_kvm.images.kernels.source import Kernel, folders_around, release_of
from pytest_kvm.kernel.coverage.tracefile import Coverage, add, read_gcov

# So many files at a time: a command line has its limit.
_BATCH = 200
_PATIENCE = 600.0
_VERSION = re.compile(r"(\d+)\.\d+\.\d+")


def build_tree(kernel: Kernel | None) -> Path | None:
    """Return the build tree that a kernel is in, None if it is in none."""
    folders = folders_around(kernel.file) if kernel is not None else []
    return next((folder for folder in folders if release_of(folder)), None)


def coverage_of(archive: bytes, tree: Path | None) -> Coverage:
    """Return the coverage that an archive of counters says; ``tree`` is where the kernel was built, or has moved to.

    Raises HostError where it cannot be known.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-kvm-gcov-") as name:
        folder = Path(name)
        pairs = list(_laid_out(archive, tree, folder))
        if not pairs:
            where = f"not in {tree}" if tree is not None else "the kernel's build tree is not known"
            raise HostError(f"the notes of the compiler (.gcno) are not there: {where}")
        program = find_gcov(_major(pairs[0].with_suffix(".gcno")))
        found: Coverage = {}
        for first in range(0, len(pairs), _BATCH):
            add(found, read_gcov(_said(program, pairs[first : first + _BATCH]), _Places(tree)))
        return found


def _laid_out(archive: bytes, tree: Path | None, folder: Path) -> Iterator[Path]:
    """Put each file of counters beside its notes, and yield it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for number, member in enumerate(files):
            content = files.extractfile(member) if member.isfile() and member.name.endswith(".gcda") else None
            notes = notes_of("/" / PurePosixPath(member.name), tree) if content is not None else None
            if content is not None and notes is not None:
                path = folder / str(number) / PurePosixPath(member.name).name
                path.parent.mkdir()
                path.write_bytes(content.read())
                path.with_suffix(".gcno").symlink_to(notes)
                yield path


def notes_of(counters: PurePosixPath, tree: Path | None) -> Path | None:
    """Return the notes that counters belong to: in the tree, wherever that is now, else where they were compiled."""
    notes = counters.with_suffix(".gcno")
    if tree is not None:
        for first in range(1, len(notes.parts)):
            path = tree.joinpath(*notes.parts[first:])
            if path.is_file():
                return path.absolute()
    path = Path(notes)
    return path if path.is_file() else None


def _major(notes: Path) -> int:
    """Return the version of the compiler that wrote notes (gcc/gcov-io.h): ``B22*``, backwards, is 12."""
    with notes.open("rb") as file:
        word = file.read(8)[:3:-1].decode("latin-1")
    return (ord(word[0]) - ord("A")) * 10 + int(word[1]) if word[:1].isupper() and word[1:2].isdigit() else 0


def find_gcov(major: int) -> str:
    """Return the program of a compiler's version. Raises HostError if it is not here."""
    for name in (f"gcov-{major}", "gcov"):
        program = shutil.which(name)
        if program is not None and _version_of(program) == major:
            return program
    raise HostError(f"gcov of GCC {major}, which compiled the kernel, is not installed (package gcc-{major})")


def _version_of(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    versions = _VERSION.findall(done.stdout.partition("\n")[0])
    return int(versions[-1]) if versions else 0


def _said(program: str, files: Sequence[Path]) -> str:
    command = [program, "--json-format", "--stdout", *map(str, files)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{program} cannot read the counters: {error}") from error
    if "stamp mismatch" in done.stderr:
        raise HostError("the build tree is not the one of this kernel: it was compiled anew since")
    if done.returncode:
        raise HostError(f"{program} cannot read the counters: {done.stderr.strip().rpartition(chr(10))[2]}")
    return done.stdout


class _Places:
    """Where source files are: in the folder that they were compiled in, or in the tree that this has become."""

    def __init__(self, tree: Path | None) -> None:
        self._tree = tree

    def __call__(self, folder: str, file: str) -> str:
        """Return the path of a file."""
        path = os.path.normpath(os.path.join(folder, file))
        if self._tree is not None and path.startswith(f"{folder}/"):
            moved = self._tree / os.path.relpath(path, folder)
            if moved.is_file():
                return str(moved)
        return path
