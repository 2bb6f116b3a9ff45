"""The folder of a test's results: made when there is something to keep, and never with another run's in it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from pathlib import Path

from pytest_kvm.journal import now
from pytest_kvm.report.names import folder_of_test

# Says of which test a folder is, and of which run; what has none is not ours to remove.
MARK = "test.json"
_TRIES = 3


class Place:
    """The folder for one run of the test ``test``, an id of pytest's, in a ``directory`` that may have to be made."""

    def __init__(self, directory: Path, test: str) -> None:
        self.path = directory / folder_of_test(test)
        self._test = test
        self._run = secrets.token_hex(8)

    def clear(self) -> None:
        """Remove what is left of an earlier run of the test, or of another one that goes on at the same time.

        Raises OSError, also when it is something else that is there.
        """
        mark = self._mark()
        if mark is not None and mark.get("run") != self._run:
            shutil.rmtree(self.path)

    def claim(self) -> None:
        """Let the folder be there, and be this run's; raises OSError as ``clear`` does."""
        for attempt in range(1, _TRIES + 1):
            self.clear()
            if self._mark() is not None:
                return
            try:
                self._make()
            except OSError as error:
                # Somebody else has just made it, or removed the directory that was empty.
                if attempt == _TRIES or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
            else:
                return

    def _make(self) -> None:
        fresh = self.path.with_name(f".{self.path.name}.{self._run}")
        fresh.mkdir(parents=True)
        try:
            about = {"test": self._test, "time": now(), "run": self._run}
            (fresh / MARK).write_text(f"{json.dumps(about)}\n")
            os.rename(fresh, self.path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _mark(self) -> dict[str, object] | None:
        """Return what the mark says, {} in an empty folder, None if there is none; raises OSError for anything else."""
        try:
            mark = json.loads((self.path / MARK).read_text())
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(self.path):
                return None
            if self.path.is_dir() and not any(self.path.iterdir()):
                return {}
        except ValueError:
            pass  # nothing that we have written
        else:
            if isinstance(mark, dict) and mark.get("test") == self._test and not self.path.is_symlink():
                return mark
        raise FileExistsError(errno.EEXIST, "is there, and is not of an earlier run of this test", str(self.path))


def remove_empty(directory: Path) -> None:
    """Remove the directory of all results if nothing is in it."""
    with contextlib.suppress(OSError):
        directory.rmdir()
