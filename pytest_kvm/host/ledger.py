"""The ledger of what the machines of all sessions take: a directory in which each share is a file.

A file's name says all that is counted, so that nothing can be half written, and giving back works on a full disk, too;
its content tells people about it. It counts as long as the process lives whose it is. All of this happens under a lock
on the directory, held for a fraction of a millisecond.

Those who wait have a bell, which is rung at every change. Who is killed rings none: its end is seen through a pidfd.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.host.amounts import Amount, Limits
from pytest_kvm.host.bell import Bell, ring
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.process import Process
from pytest_kvm.host.record import Record, Scope, State

_PIDS = Path("/proc/self/ns/pid")
_BELL, _ASKED = "bell", "asked"
# A share's file tells no more than that about the test, in characters.
_LONGEST = 300
# Seconds after which nobody has anything in a ledger that nobody has changed: the host has been started again since.
_OLD = 30 * 86400.0


def ledger_name() -> str:
    """Return the name of the ledger among those of other boots, hosts and containers that share a directory.

    Process ids mean something only between processes of one of these.
    """
    return f"{boot_id()}-{_PIDS.stat().st_ino}"


def remove_old(directory: Path) -> None:
    """Remove the ledgers in a directory that were left when a host went down."""
    with contextlib.suppress(FileNotFoundError):
        for ledger in directory.iterdir():
            if time.time() - ledger.stat().st_mtime > _OLD:
                shutil.rmtree(ledger, ignore_errors=True)


class Ledger:
    """The ledger in a directory, which is made when it is missing; usable from any thread.

    ``run`` is what the processes of one pytest run have in common; ``limits`` are those of this one.
    """

    def __init__(self, directory: Path, limits: Limits, *, run: str = "") -> None:
        self.directory = directory
        self.limits = limits
        self.process = Process.current()
        self.run = hashlib.sha256(run.encode() if run else os.urandom(16)).hexdigest()[:8]
        self._clock = 0
        self._counting = threading.Lock()
        # Ours, each with what it tells about itself.
        self._own: dict[Record, str] = {}
        # What the names mean that have been seen last.
        self._known: dict[str, Record | None] = {}

    def record(self, amount: Amount, *, scope: Scope, state: State) -> Record:
        """Return a new entry of this process, not yet in the ledger."""
        with self._counting:  # no two have the same name
            self._clock = since = max(self._clock + 1, time.monotonic_ns())
        return Record(
            process=self.process,
            run=self.run,
            since=since,
            amount=amount,
            limits=self.limits,
            scope=scope,
            state=state,
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Page]:
        """Yield what is in the ledger, which nobody else reads or changes during the block. Raises OSError."""
        with self._locked():
            yield Page(self.directory, self._own, self._known, self.process)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        while True:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # A child that another thread is about to start may have the descriptor for a moment, and the lock.
                stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
                if _is(descriptor, self.directory):  # nobody has removed it meanwhile
                    yield
                    return

    def close(self) -> None:
        """Strike out what is left of this ledger's entries, and remove the directory when nobody has any."""
        with self.opened() as page:
            for record in list(self._own):
                page.remove(record)
            page.ring()
            with contextlib.suppress(OSError):  # others are in it
                self.directory.rmdir()
        remove_old(self.directory.parent)

    def bell(self, record: Record) -> Bell:
        """Return the bell of one who waits; the ledger must be open. Raises OSError."""
        return Bell(_bell(self.directory, record))

    def asked(self) -> Bell:
        """Return the bell that is rung when this process shall give up what nobody has asked for.

        The ledger must be open. Raises OSError.
        """
        return Bell(_asked(self.directory, self.process, self.run))


class Page:
    """What is in the ledger, while it is locked."""

    def __init__(
        self, directory: Path, own: dict[Record, str], known: dict[str, Record | None], process: Process
    ) -> None:
        self._directory = directory
        self._own = own
        self._known = known
        self._process = process
        self.records: list[Record] = self._read()

    def _read(self) -> list[Record]:
        """Return the entries of the living; what is left of the dead is removed, and what is lost of ours restored."""
        names = os.listdir(self._directory)
        known = {name: self._known[name] if name in self._known else Record.parse(name) for name in names}
        self._known.clear()
        self._known.update(known)
        found: list[Record] = []
        alive = {self._process: True}
        for name, record in known.items():
            process = record.process if record is not None else _process(name)
            if process is None:  # not ours
                continue
            if process not in alive:
                alive[process] = process.alive
            if not alive[process]:
                self._remove(name)
            elif record is not None:
                found.append(record)
        lost = self._own.keys() - found
        for record in lost:
            self._write(record)
        return [*found, *lost]

    def add(self, record: Record, about: str) -> None:
        """Enter it; ``about`` says in words what it is."""
        self._write(record, about)
        self._own[record] = about
        self.records.append(record)

    def _write(self, record: Record, about: str | None = None) -> None:
        path = self._directory / record.name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            text = json.dumps(self._own[record] if about is None else about[:_LONGEST])
            with contextlib.suppress(OSError):  # a full disk: it counts, whether or not it can tell about itself
                os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def remove(self, record: Record) -> None:
        """Strike it out; nothing happens when it is not there."""
        self._own.pop(record, None)
        self._remove(record.name)
        self.records = [other for other in self.records if other != record]

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def about(self, record: Record) -> str:
        """Return what an entry says about itself, "" if it cannot be read."""
        try:
            text = json.loads((self._directory / record.name).read_bytes())
        except (OSError, ValueError):
            return ""
        return text if isinstance(text, str) else ""

    def ring(self) -> None:
        """Let all who wait look again."""
        for record in self.records:
            if record.state is State.WAITING:
                ring(_bell(self._directory, record))

    def ask(self) -> None:
        """Ask those who have made machines that nobody has asked for yet to give them up."""
        for process, run in {(r.process, r.run) for r in self.records if r.state is State.PREPARED}:
            ring(_asked(self._directory, process, run))


def _process(name: str) -> Process | None:
    """Return the process whose file this is: it is in the names of all of the ledger's files."""
    parts = name.split(".")
    if len(parts) > 2 and parts[0].isdecimal() and parts[1].isdecimal():
        return Process(int(parts[0]), int(parts[1]))
    return None


def _bell(directory: Path, record: Record) -> Path:
    return directory / f"{record.process.name}.{record.run}.{record.since}.{_BELL}"


def _asked(directory: Path, process: Process, run: str) -> Path:
    return directory / f"{process.name}.{run}.{_ASKED}"


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
