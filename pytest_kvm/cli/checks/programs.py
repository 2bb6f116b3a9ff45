"""Programs that can be there or not: where, and in which version."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.host.helpers import find

_PATIENCE = 10.0
_PURPOSES = {
    "virtiofsd": "folders of the host in the guest, through virtio-fs",
    "swtpm": "machines with a TPM",
    "tesseract": "reading text on a guest's screen",
    "addr2line": "file and line in what a guest's kernel reports",
    "gdb": "debugging a guest's kernel through QEMU's gdbstub",
}


def check(_: Subject) -> Iterator[Row]:
    """Look for the programs that some tests need."""
    for name, purpose in _PURPOSES.items():
        yield program("Programs", name, purpose)


def also(programs: Mapping[str, str]) -> Iterator[Row]:
    """Look for programs that were named, each with its package; an absolute path may be that of any file."""
    for name, package in programs.items():
        path = Path(name) if os.path.isabs(name) else find(name, ())
        there = path is not None and path.exists()
        yield Row(
            group="Asked for",
            name=name,
            state=State.OK if there else State.MISSING,
            text=str(path) if there else f"not there (package {package})",
            needed=True,
            package=package,
        )


def program(group: str, name: str, purpose: str, *, needed: bool = False) -> Row:
    """Look for a program, and let it say its version."""
    path = find(name)
    state, text, data = State.MISSING, "not there", {}
    if path is not None:
        state, said = version(path)
        text, data = (f"{said} ({path})" if said else str(path)), {"path": str(path)}
    return Row(group=group, name=name, state=state, text=text, purpose=purpose, needed=needed, package="", data=data)


def version(path: Path) -> tuple[State, str]:
    """Return whether a program runs, and its version, or what is wrong."""
    try:
        said = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return State.BROKEN, f"says no version within {_PATIENCE:.0f} s"
    except OSError as error:
        return State.BROKEN, f"cannot be run: {error.strerror}"
    if said.returncode:
        last = said.stdout.strip().rpartition("\n")[2][:200]
        return State.BROKEN, f"'--version' ends with status {said.returncode}: {last}"
    first, _, _ = said.stdout.strip().partition("\n")  # licences have versions, too
    found = re.search(r"\d+(?:\.\d+)+\S*", first)
    return State.OK, found[0].rstrip(",)") if found else ""
