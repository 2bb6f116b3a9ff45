"""What a session has found out about kernels' files: the same splat may come a thousand times."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pytest_kvm.kernel.traces.lines import Line
from pytest_kvm.kernel.traces.places import Place

Identity = tuple[str, int, int]


@dataclass
class Known:
    """What is known of one file: the lines of places (none where there are none), and where its sources were."""

    lines: dict[Place, list[list[Line]]] = field(default_factory=dict)
    prefixes: list[str] = field(default_factory=list)


@dataclass
class Memory:
    """All that is known; whoever uses it holds the ``lock``.

    ``given_up`` says why nothing is tried any more: a program that hangs would do so at each report.
    """

    given_up: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _files: dict[Identity, Known] = field(default_factory=dict, repr=False)
    _chosen: dict[object, tuple[Identity, Path]] = field(default_factory=dict, repr=False)
    _places: dict[object, list[tuple[str, Path]]] = field(default_factory=dict, repr=False)

    def about(self, path: Path) -> Known:
        """Return what is known of a file, as it is now; raises OSError."""
        return self._files.setdefault(_identity(path), Known())

    def chosen(self, subject: object, choose: Callable[[], Path | None]) -> Path | None:
        """Return the file that was chosen for a subject, as long as it is the same; else choose one."""
        known = self._chosen.get(subject)
        if known is not None and known[1].exists() and _identity(known[1]) == known[0]:
            return known[1]
        path = choose()
        if path is not None:
            self._chosen[subject] = (_identity(path), path)
        return path

    def places(self, subject: object, find: Callable[[], Iterable[tuple[str, Path]]]) -> list[tuple[str, Path]]:
        """Return where files were found for a subject, which are looked for once."""
        if subject not in self._places:
            self._places[subject] = list(find())
        return self._places[subject]


def _identity(path: Path) -> Identity:
    status = os.stat(path)
    return str(path), status.st_size, status.st_mtime_ns
