"""Keep downloaded packages by content, and remember which ones a suite's guest needs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.files import write_atomically
from pytest_kvm.images.builtin.packages import Package, PackageIndex, UnknownPackage


class Source(Protocol):
    """Where packages come from; both methods raise ImageUnavailable."""

    def index(self, suite: str) -> PackageIndex:
        """Return a suite's verified index."""

    def fetch(self, suite: str, packages: Sequence[Package], into: Path) -> None:
        """Download packages to files of any name in the directory ``into``."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Packages to be chosen: ``roots`` of a suite and what they need, if its name begins with one of ``prefixes``.

    ``name`` is the selection's in the cache; ``leave_out`` are roots that hold nothing themselves.
    """

    name: str
    suite: str
    roots: tuple[str, ...]
    prefixes: tuple[str, ...]
    leave_out: tuple[str, ...] = ()


class Pool:
    """Packages in a directory, each under its SHA-256, beside lists of what belongs together."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def remembered(self, selection: Selection) -> list[Package] | None:
        """Return the packages of a selection as they were last resolved, None if they never were."""
        try:
            stored = json.loads(self._list(selection).read_text(encoding="utf-8"))
            if stored["selection"] != _plain(selection):
                return None
            return [Package(**{**entry, "depends": tuple(entry["depends"])}) for entry in stored["packages"]]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None  # written by another version of this package: resolved anew

    def resolve(self, selection: Selection, index: PackageIndex) -> list[Package]:
        """Resolve a selection with its suite's index, and remember the result. Raises ImageUnavailable."""
        try:
            found = index.resolve(selection.roots, lambda name: name.startswith(selection.prefixes))
        except UnknownPackage as error:
            raise ImageUnavailable(
                f"the archive's suite {selection.suite} has no package {error.args[0]}, which the built-in guest needs"
            ) from error
        except ValueError as error:
            raise ImageUnavailable(f"the index of suite {selection.suite} is damaged: {error}") from error
        packages = [package for package in found if package.name not in selection.leave_out]
        self._directory.mkdir(parents=True, exist_ok=True)
        stored = {"selection": _plain(selection), "packages": [asdict(package) for package in packages]}
        write_atomically(self._list(selection), json.dumps(stored, indent=1).encode())
        return packages

    def path(self, package: Package) -> Path:
        """Return where a package is kept, once it is there."""
        return self._directory / f"{package.sha256}.deb"

    def missing(self, packages: Sequence[Package]) -> list[Package]:
        """Return those of the packages that are not there."""
        return [package for package in packages if not self.path(package).is_file()]

    def fetch(self, selection: Selection, packages: Sequence[Package], source: Source) -> None:
        """Download the packages that are not there, and verify each by its hash. Raises ImageUnavailable."""
        missing = self.missing(packages)
        if not missing:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partial.", dir=self._directory) as name:
            into = Path(name)
            source.fetch(selection.suite, missing, into)
            received = {file_sha256(path): path for path in sorted(into.iterdir())}
            for package in missing:
                if package.sha256 not in received:
                    raise ImageUnavailable(
                        f"package {package.name} {package.version} was not received with the content"
                        f" (SHA-256 {package.sha256}) that the archive's index announces"
                    )
            for package in missing:
                os.replace(received[package.sha256], self.path(package))

    def _list(self, selection: Selection) -> Path:
        return self._directory / f"{selection.name}.json"


def _plain(selection: Selection) -> object:
    return json.loads(json.dumps(asdict(selection)))  # tuples become lists, as they are when read back


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
