"""What tests leave of coverage while a session runs, in a folder that its processes share; and what becomes of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.files import write_atomically
from pytest_kvm.kernel.coverage.gcov import coverage_of
from pytest_kvm.kernel.coverage.tracefile import Coverage, add, write

_COUNTERS, _ABOUT = "counters.tar", "about.json"


@dataclass(frozen=True)
class Part:
    """The counters of one machine at one moment of a test; or, without any, why there are none."""

    test: str
    counters: bytes | None = None
    tree: str = ""
    reason: str = ""


class Parts:
    """The parts of a session that will be one tracefile."""

    def __init__(self, tracefile: Path) -> None:
        self.tracefile = tracefile
        self._folder = tracefile.with_name(f".{tracefile.name}.parts")

    def begin(self) -> None:
        """Begin a session: nothing is left of one that was killed. Raises OSError."""
        self.remove()
        self._folder.mkdir(parents=True)

    def remove(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def save(self, part: Part) -> None:
        """Add a part. Raises OSError."""
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._folder))
        if part.counters is not None:
            (folder / _COUNTERS).write_bytes(part.counters)
        about = {"test": part.test, "tree": part.tree, "reason": part.reason}
        (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")

    def merge(self) -> list[str]:
        """Write the tracefile, if there is something for it; return what is to be said about it. Raises OSError."""
        tests: dict[str, Coverage] = {}
        lacking: dict[str, set[str]] = {}
        for part in self._all():
            reason = part.reason
            if part.counters is not None:
                try:
                    add(
                        tests.setdefault(part.test, {}),
                        coverage_of(part.counters, Path(part.tree) if part.tree else None),
                    )
                except HostError as error:
                    reason = str(error)
            if reason:
                lacking.setdefault(reason, set()).add(part.test)
        said = []
        tests = {test: coverage for test, coverage in tests.items() if coverage}
        if tests:
            write_atomically(self.tracefile, write(tests).encode())
            said.append(f"coverage of {len(tests)} test{'s'[: len(tests) != 1]} is in {self.tracefile}")
        for reason, names in Counter({reason: len(names) for reason, names in lacking.items()}).most_common():
            said.append(f"no coverage of {names} test{'s'[: names != 1]}: {reason}")
        return said or ["no coverage: no test had a machine"]

    def _all(self) -> Iterator[Part]:
        for about in sorted(self._folder.glob(f"*/{_ABOUT}")):
            counters = about.with_name(_COUNTERS)
            said = json.loads(about.read_text(encoding="utf-8"))
            yield Part(
                said["test"], counters.read_bytes() if counters.is_file() else None, said["tree"], said["reason"]
            )
