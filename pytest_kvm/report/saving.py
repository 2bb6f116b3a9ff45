"""Evidence put into a folder: file by file, each with its own trouble."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import KVMError
from pytest_kvm.machine.evidence import CONSOLE, Evidence
from pytest_kvm.report.command import command_text
from pytest_kvm.report.reports import reports_text
from pytest_kvm.report.spec import spec_json

_TEXTS: dict[str, Callable[[Evidence], str]] = {
    "command.txt": command_text,
    "spec.json": lambda evidence: spec_json(evidence.spec),
    "reports.txt": reports_text,
}


def save(evidence: Evidence, folder: Path) -> list[str]:
    """Write all of a machine's evidence into a folder, in place of what was saved of it before.

    Returns what could not be saved, a line each.
    """
    troubles = list(evidence.troubles)
    with _noting(troubles, folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        return troubles
    for name, text in _TEXTS.items():
        with _noting(troubles, folder / name):
            content = text(evidence)
            if content:
                (folder / name).write_bytes(content.encode(errors="surrogateescape"))
            else:
                (folder / name).unlink(missing_ok=True)
    for name, parts in evidence.files.items():
        with _noting(troubles, folder / name):
            _join(parts, folder / name)
    if not evidence.all_logged:
        with _noting(troubles, folder / CONSOLE), (folder / CONSOLE).open("ab") as log:
            log.write(f"[and this is the end]\n{evidence.console}".encode(errors="surrogateescape"))
    return troubles


def move(evidence: Evidence, folder: Path) -> Evidence:
    """Move the files into a folder of their own, on the same file system; return the evidence as it is there.

    Raises OSError.
    """
    folder.mkdir(parents=True)
    files: dict[str, Sequence[Path]] = {}
    for name, parts in evidence.files.items():
        present = [part for part in parts if part.exists()]
        files[name] = [folder / part.name for part in present]
        for part in present:
            os.rename(part, folder / part.name)
    return replace(evidence, files=files)


def _join(parts: Sequence[Path], target: Path) -> None:
    """Write one file with the content of all parts that there are; none if there are none."""
    present = [part for part in parts if part.exists()]
    if not present:
        return
    with target.open("wb") as whole:
        for part in present:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, 1 << 20)


@contextlib.contextmanager
def _noting(troubles: list[str], path: Path) -> Iterator[None]:
    """Note what goes wrong inside the block instead of raising it."""
    try:
        yield
    except (OSError, KVMError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        troubles.append(f"{path}: {reason}")
