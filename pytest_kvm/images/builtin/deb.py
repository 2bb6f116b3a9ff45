"""Read chosen files out of Debian packages without unpacking them to disk."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a package: ``path`` without a leading slash, and its ``data`` or the ``target`` of a link."""

    path: str
    data: bytes = b""
    target: str | None = None


def merged(path: str) -> str:
    """Return a member's path as on a system with merged /usr: ``./lib/x`` and ``./usr/lib/x`` are one."""
    path = path.removeprefix("./").lstrip("/")
    first = path.partition("/")[0]
    return f"usr/{path}" if first in {"bin", "sbin", "lib", "lib32", "lib64"} else path


def members(package: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the files and symbolic links of a .deb whose merged path is ``wanted``.

    Nothing is written to disk, so no name in the package can lead anywhere. Raises ImageUnavailable if
    dpkg-deb is missing or cannot read the package.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise ImageUnavailable(
            "the built-in guest cannot be made: dpkg-deb, which opens its packages, is not installed",
            hint="install the package dpkg, or give an image with --kvm-image=PATH",
        ) from error
    with process:
        try:
            # The stream is read in order and never seeked: a kernel package holds hundreds of MB.
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for info in archive:
                    path = merged(info.name)
                    if info.issym() and wanted(path):
                        yield Member(path, target=info.linkname)
                    elif info.isreg() and wanted(path):
                        content = archive.extractfile(info)
                        yield Member(path, content.read() if content else b"")
        except (tarfile.TarError, EOFError, ValueError, IndexError, RecursionError) as error:  # as tarfile has it
            process.kill()
            raise _unreadable(package, str(error), process) from error
        except BaseException:
            process.kill()  # it would wait for a reader for ever
            raise
        if process.stdout is not None:
            process.stdout.read()  # the padding behind the last member, lest dpkg-deb dies of a closed pipe
        if process.wait() != 0:
            raise _unreadable(package, f"status {process.returncode}", process)


def _unreadable(package: Path, what: str, process: subprocess.Popen[bytes]) -> ImageUnavailable:
    said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    return ImageUnavailable(
        f"dpkg-deb cannot read the package {package} ({what}){': ' + said if said else ''}",
        hint="delete that file, so that it is fetched again",
    )
