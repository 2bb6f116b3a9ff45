"""Programs of the host in the guest: copied there, with the shared libraries that they need."""

from __future__ import annotations

import io
import re
import secrets
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_kvm.errors import MachineError, SpecError
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
        copy(vm, archived({".": path}), folder)
        return [folder]
    libraries = libraries_of(path)
    files = {path.name: path, **{f"{_LIBRARIES}/{name}": file for name, file in libraries.items()}}
    copy(vm, archived(files), folder)
    linker = next((name for name in libraries if name.startswith("ld-") or name.startswith("ld.so")), None)
    program = f"{folder}/{path.name}"
    if linker is None:
        return [program]
    return [f"{folder}/{_LIBRARIES}/{linker}", "--library-path", f"{folder}/{_LIBRARIES}", program]


def archived(files: Mapping[str, Path | bytes]) -> bytes:
    """Return a tar archive of files and folders, by their names in it; texts are made programs.

    Raises SpecError for one that cannot be read.
    """
    data = io.BytesIO()
    try:
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name, file in files.items():
                if isinstance(file, bytes):
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(file), 0o755
                    archive.addfile(member, io.BytesIO(file))
                    continue
                # A library is a link to the file that is meant; a folder keeps its links.
                archive.add(file if file.is_dir() else file.resolve(), name)
    except OSError as error:
        names = ", ".join(str(file) for file in files.values() if isinstance(file, Path))
        raise SpecError(f"{names} cannot be copied to the guest: {error}") from error
    return data.getvalue()


def copy(vm: Guest, archive: bytes, folder: str) -> None:
    """Unpack an archive in a folder of the guest, which is made if it is not there. Raises MachineError."""
    done = vm.run(f"mkdir -p {folder} && tar -x -f - -C {folder}", input=archive, check=False)
    if done.returncode:
        why = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        hint = "; vm(memory=…) gives it more" if "No space" in why else ""
        size = f"{len(archive) / (1 << 20):.0f} MiB"
        raise MachineError(f"VM {vm.name!r}: {size} cannot be copied to {folder} in the guest: {why}{hint}")


def libraries_of(path: Path) -> dict[str, Path]:
    """Return what a program needs to be loaded, by the names that it knows them by; nothing for a script."""
    try:
        if not is_elf(path):
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


def is_elf(path: Path) -> bool:
    """Return whether a file is a program, or a library; raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
