"""What remains of one run of a test: what its machines leave, kept when it fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_kvm.errors import HostError
from pytest_kvm.host.rundir import RunDir, make_run_dir
from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.report.names import folder_of_machine
from pytest_kvm.report.place import Place
from pytest_kvm.report.saving import move, save


class Subject(Hashable, Protocol):
    """A machine, as far as it matters here."""

    name: str

    def evidence(self, *, screen: bool = False) -> Evidence | None:
        """Return what is known about it, with a picture of its screen; None if QEMU was never started for it."""
        ...


@dataclass
class Entry:
    """The last that is known of a machine, and whether that is in its folder."""

    evidence: Evidence
    saved: bool = False


class Results:
    """The machines of a test; usable from any thread.

    ``place`` is where results are kept, None for nowhere; ``keep`` says that they are, whatever becomes of the test.
    ``troubles`` are what could not be saved, a line each.
    """

    def __init__(self, place: Place | None, *, keep: bool = False) -> None:
        self.troubles: list[str] = []
        self._place = place
        self._kept = keep
        self._entries: dict[Subject, Entry] = {}
        self._folders: dict[Subject, str] = {}
        self._aside: RunDir | None = None
        self._closed = False
        self._lock = threading.Lock()

    def leave(self, vm: Subject) -> None:
        """A machine has ended: save what it leaves, or put it aside until it is known whether the test fails."""
        with self._lock:
            evidence = vm.evidence()
            if evidence is None or self._closed:
                return
            entry = self._entries[vm] = Entry(evidence)
            if self._kept:
                self._save(vm)
            elif self._place is not None:
                with self._noting("what a machine leaves cannot be put aside"):
                    entry.evidence = self._put_aside(evidence)

    def keep(self, running: Iterable[Subject]) -> None:
        """Save what all machines leave that have ended, and what there is of those that are ``running``."""
        with self._lock:
            self._kept = True
            for vm in running:
                evidence = vm.evidence(screen=True)
                if evidence is not None:
                    self._entries[vm] = Entry(evidence)
            for vm, entry in self._entries.items():
                if not entry.saved:
                    self._save(vm)

    def knows(self, vm: Subject) -> bool:
        """Return whether there is something of the machine."""
        return vm in self._entries

    @property
    def kept(self) -> bool:
        """Whether what there is is saved."""
        return self._kept

    @property
    def path(self) -> Path | None:
        """The test's folder; None if there is nothing in it."""
        place = self._place
        return place.path if place is not None and any(entry.saved for entry in self._entries.values()) else None

    def accounts(self) -> Iterator[tuple[Evidence, Path | None]]:
        """Yield the last that is known of each machine, and its folder, None where nothing could be saved."""
        for vm, entry in self._entries.items():
            yield entry.evidence, self._folder(self._place, vm) if entry.saved and self._place is not None else None

    def folder(self, vm: Subject) -> Path | None:
        """Return the machine's folder, which is made if it is not there; None if nothing shall be kept.

        Raises OSError.
        """
        with self._lock:
            if self._place is None:
                return None
            self._place.claim()
            folder = self._folder(self._place, vm)
            folder.mkdir(exist_ok=True)
            return folder

    def close(self) -> None:
        """Remove what was put aside; what ends from now on belongs to somebody else."""
        with self._lock:
            self._closed = True
            aside, self._aside = self._aside, None
            if aside is not None:
                with self._noting(aside.path):
                    aside.remove()

    def _put_aside(self, evidence: Evidence) -> Evidence:
        if self._aside is None:
            self._aside = make_run_dir()
        return move(evidence, self._aside.path / str(len(self._entries)))

    def _save(self, vm: Subject) -> None:
        entry = self._entries[vm]
        if self._place is None:
            return
        with self._noting(self._place.path):
            self._place.claim()
            for trouble in save(entry.evidence, self._folder(self._place, vm)):
                self._note(trouble)
            entry.saved = True

    def _folder(self, place: Place, vm: Subject) -> Path:
        if vm not in self._folders:
            taken = frozenset(name.lower() for name in self._folders.values())
            self._folders[vm] = folder_of_machine(vm.name, taken)
        return place.path / self._folders[vm]

    @contextlib.contextmanager
    def _noting(self, subject: object) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._note(f"{error.filename or subject}: {error.strerror or error}")
        except HostError as error:
            self._note(f"{subject}: {error}")

    def _note(self, trouble: str) -> None:
        if trouble not in self.troubles:
            self.troubles.append(trouble)
