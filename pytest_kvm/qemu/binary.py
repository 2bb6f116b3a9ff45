"""Which QEMU is used, and what it can do: asked once per binary, then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.files import write_atomically

# Distributions' names, most specific first; Red Hat's qemu-kvm stands in libexec.
_LIBEXEC = "/usr/libexec/qemu-kvm"
_FORMAT = 2


@dataclass(frozen=True)
class QEMUBinary:
    """A QEMU system emulator: ``version`` as numbers, ``version_text`` as QEMU prints it, ``devices`` it knows.

    ``data`` are the directories where it looks for firmware.
    """

    path: Path
    version: tuple[int, ...]
    version_text: str
    devices: frozenset[str]
    machines: frozenset[str]
    sandbox: bool
    data: tuple[Path, ...] = ()

    @property
    def identity(self) -> str:
        """A text that changes when the file does: path, device, inode, size, mtime."""
        return _identity(self.path)


def candidates() -> list[str]:
    """Return the names under which QEMU for this host's architecture is looked for, in order."""
    return [f"qemu-system-{platform.machine()}", "qemu-kvm", _LIBEXEC, "kvm"]


def find_qemu(name: str | None = None, *, memory: Path | None = None) -> QEMUBinary:
    """Find QEMU and ask what it can do.

    ``name`` is a path or a name on PATH; None looks for ``candidates()``. Answers are remembered in the directory
    ``memory``, if given, as long as the file stays the same. Raises QEMUNotFound.
    """
    path = locate(name)
    identity = _identity(path)
    answers = _recall(memory, path, identity)
    if answers is None:
        answers = _ask(path)
        _remember(memory, path, identity, answers)
    return QEMUBinary(
        path=path,
        version=tuple(answers["version"]),
        version_text=answers["version_text"],
        devices=frozenset(answers["devices"]),
        machines=frozenset(answers["machines"]),
        sandbox=answers["sandbox"],
        data=tuple(Path(directory) for directory in answers["data"]),
    )


def locate(name: str | None) -> Path:
    """Return where QEMU is, without running it; ``name`` as for ``find_qemu``. Raises QEMUNotFound."""
    if name is not None:
        found = shutil.which(os.path.expanduser(name))
        if found is None:
            raise QEMUNotFound(f"--kvm-qemu={name}: no such executable", hint="give a path, or a name on PATH")
        return Path(found).absolute()
    for candidate in candidates():
        found = shutil.which(candidate)
        if found is not None:
            return Path(found).absolute()
    raise QEMUNotFound(
        f"no QEMU found (looked for {', '.join(candidates())})",
        hint="install it with 'pytest-kvm doctor --install', or name it with --kvm-qemu=PATH",
    )


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}:{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _memory_file(memory: Path, path: Path) -> Path:
    return memory / f"{path.name}-{hashlib.sha256(bytes(path)).hexdigest()[:12]}.json"


def _recall(memory: Path | None, path: Path, identity: str) -> dict[str, Any] | None:
    if memory is None:
        return None
    try:
        remembered = json.loads(_memory_file(memory, path).read_text())
    except (OSError, ValueError):
        return None  # not asked yet, or damaged: ask
    if not isinstance(remembered, dict) or remembered.get("format") != _FORMAT:
        return None
    return remembered if remembered.get("identity") == identity else None


def _remember(memory: Path | None, path: Path, identity: str, answers: dict[str, Any]) -> None:
    if memory is None:
        return
    # Asking again next time is all that follows.
    with contextlib.suppress(OSError):
        text = json.dumps({**answers, "format": _FORMAT, "identity": identity})
        write_atomically(_memory_file(memory, path), text.encode())


def _ask(path: Path) -> dict[str, Any]:
    version_text = ask(path, "-version")
    version = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", version_text)
    if version is None:
        raise QEMUNotFound(
            f"{path} does not say which QEMU it is: '-version' prints {version_text[:80]!r}",
            hint="name a QEMU system emulator with --kvm-qemu=PATH",
        )
    return {
        "version": [int(part) for part in version.groups(default="0")],
        "version_text": ".".join(part for part in version.groups() if part),
        "devices": re.findall(r'^name "([^"]+)"', ask(path, "-device", "help"), re.MULTILINE),
        "machines": re.findall(r"^(\S+)  ", ask(path, "-machine", "help"), re.MULTILINE),
        # Built without seccomp, QEMU knows no such option.
        "sandbox": "-sandbox" in ask(path, "-help"),
        "data": ask(path, "-L", "help").splitlines(),
    }


def ask(path: Path, *arguments: str) -> str:
    """Run QEMU with arguments that make it answer and end, and return what it prints; raises QEMUNotFound."""
    try:
        result = subprocess.run(
            [str(path), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=30,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise QEMUNotFound(
            f"{path} {' '.join(arguments)} failed with status {error.returncode}: {error.stderr.strip()[-500:]}",
            hint="is it a QEMU system emulator, and installed completely?",
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QEMUNotFound(f"{path} cannot be run: {error}", hint="name another with --kvm-qemu=PATH") from None
    return result.stdout
