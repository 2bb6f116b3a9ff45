"""Programs of the host in the guest: copied there, with the shared libraries that they need."""

from __future__ import annotations

import io
import re
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.kernel.guest import Guest

_FOLDER = "/tmp/pytest-kvm-local"
_LIBRARIES = "lib"
# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the linker, which stands alone.
_NEEDED = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_PATIENCE = 30.0


def bring(vm: Guest, path: Path) -> list[str]:
    """Do what ``VM.bring`` says."""
    folder = f"{_FOLDER}-{secrets.token_hex(4)}"
    if path.is_dir():
        _copy(vm, _archive({".": path}), folder)
        return [folder]
    libraries = _libraries(path)
    files = {path.name: path, **{f"{_LIBRARIES}/{name}": file for name, file in libraries.items()}}
    _copy(vm, _archive(files), folder)
    linker = next((name for name in libraries if name.startswith("ld-") or name.startswith("ld.so")), None)
    program = f"{folder}/{path.name}"
    if linker is None:
        return [program]
    return [f"{folder}/{_LIBRARIES}/{linker}", "--library-path", f"{folder}/{_LIBRARIES}", program]


def _archive(files: dict[str, Path]) -> bytes:
    data = io.BytesIO()
    try:
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name, file in files.items():
                # A library is a link to the file that is meant; a folder keeps its links.
                archive.add(file if file.is_dir() else file.resolve(), name)
    except OSError as error:
        names = ", ".join(map(str, files.values()))
        raise SpecError(f"{names} cannot be copied to the guest: {error}") from error
    return data.getvalue()


def _copy(vm: Guest, archive: bytes, folder: str) -> None:
    vm.run(f"mkdir -p {folder} && tar -x -f - -C {folder}", input=archive)


def _libraries(path: Path) -> dict[str, Path]:
    """Return what a program needs to be loaded, by the names that it knows them by; nothing for a script."""
    try:
        if not _is_elf(path):
            return {}
        done = subprocess.run(
            ["ldd", str(path.absolute())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpecError(f"{path}: it cannot be seen which libraries it needs: {error}", value=path) from error
    missing = _MISSING.findall(done.stdout)
    if missing:
        raise SpecError(f"{path}: the host itself does not have {', '.join(missing)}", value=path)
    return dict(_named(done.stdout))


def _named(text: str) -> Iterator[tuple[str, Path]]:
    for match in _NEEDED.finditer(text):
        file = Path(match[2])
        yield Path(match[1] or match[2]).name, file


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
