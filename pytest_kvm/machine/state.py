"""A machine's state in a folder: RAM, devices, disks and what we know about its guest, never changed once it is there.

Templates and snapshots are such folders.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from pytest_kvm.errors import MachineError
from pytest_kvm.files import opened, write_atomically
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.ram import RamFiles

# Of the folder's content; a state of another format is not understood, but made anew.
FORMAT = 1
RAM, DEVICES, TRANSCRIPT, LOG, MANIFEST = "ram", "devices", "transcript", "console.log", "manifest.json"


class Damaged(MachineError):
    """A saved state is not what it was when it was saved."""


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What belongs to a saved machine beside its files.

    ``macs`` are its NICs' addresses in order, ``ports`` the shell's, ``lanes`` where its lanes were. ``seconds`` is how
    long it took to become ready, ``about`` what it is, for people.
    """

    macs: Sequence[str]
    ports: Sequence[str]
    lanes: Sequence[SavedLane]
    seconds: float
    about: Mapping[str, str] = field(default_factory=dict)


def ram_paths(folder: Path) -> Iterator[Path]:
    """Yield the files that RAM is in, for its first backend and as many more as it may have."""
    yield folder / RAM
    yield from (folder / f"{RAM}{number}" for number in count(1))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Let what cannot be read be damaged, unless it is this process that has come to its limits."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        raise Damaged(f"{error.filename or path}: {error.strerror}") from error


class State:
    """A saved machine. ``path`` is its folder, ``guest`` what is known about it. Usable from any thread."""

    def __init__(self, path: Path, guest: Guest, files: Mapping[str, Sequence[int]]) -> None:
        self.path = path
        self.guest = guest
        self._files = files
        self._lock = threading.Lock()
        self._ram: RamFiles | None = None

    @classmethod
    def load(cls, path: Path) -> State:
        """Return the state in a folder; raises Damaged when it is not complete, or not as it was saved."""
        try:
            with _reading(path):
                manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
                if manifest["format"] != FORMAT:
                    raise Damaged(f"{path} has format {manifest['format']}, not {FORMAT}")
                known = manifest["guest"]
                guest = Guest(**{**known, "lanes": [SavedLane(**lane) for lane in known["lanes"]]})
                state = cls(path, guest, manifest["files"])
                state.check()
                if state.digest() != manifest["digest"]:
                    raise Damaged(f"{path} has been changed")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(f"{path / MANIFEST} is not what was written: {error}") from error
        return state

    def check(self) -> None:
        """Compare sizes and times of all files with what was saved; raises Damaged."""
        for name, (size, mtime) in self._files.items():
            with _reading(self.path / name):
                status = (self.path / name).stat()
            if (status.st_size, status.st_mtime_ns) != (size, mtime):
                raise Damaged(f"{self.path / name} has been changed")
            if not os.access(self.path / name, os.R_OK):
                raise Damaged(f"{self.path / name}: no permission to read it")

    def digest(self) -> str:
        """Return the SHA-256 of what is known about the machine, and of what is small and read by every clone."""
        known = json.dumps([FORMAT, asdict(self.guest), self._files], sort_keys=True)
        digest = hashlib.sha256(known.encode())
        for name in (DEVICES, TRANSCRIPT, LOG):
            digest.update((self.path / name).read_bytes())
        return digest.hexdigest()

    def ram(self, binary: QEMUBinary) -> RamFiles:
        """Return the machine's RAM for a further one to begin with, to be closed by the caller; raises Damaged."""
        with self._lock:
            if self._ram is None:
                with _reading(self.path / RAM):
                    paths = list(takewhile(lambda path: path.name in self._files, ram_paths(self.path)))
                    self._ram = RamFiles.opened(paths, binary)
            return self._ram.duplicate()

    def close(self) -> None:
        """Let go of the RAM, until it is asked for again; machines that began with it go on."""
        with self._lock:
            ram, self._ram = self._ram, None
        if ram is not None:
            ram.close()


def write(path: Path, guest: Guest) -> None:
    """Complete a folder that has all the files but the manifest; raises OSError."""
    files = {}
    for file in sorted(path.iterdir()):
        os.chmod(file, 0o400)
        with opened(file) as descriptor:
            os.fsync(descriptor)  # after a crash of the host, what is there must be what was meant
        status = file.stat()
        files[file.name] = [status.st_size, status.st_mtime_ns]
    digest = State(path, guest, files).digest()
    manifest = {"format": FORMAT, "guest": asdict(guest), "files": files, "digest": digest}
    write_atomically(path / MANIFEST, f"{json.dumps(manifest, indent=1)}\n".encode(), 0o400)
