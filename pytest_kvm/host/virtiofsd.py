"""The daemon that serves a folder to a guest through virtio-fs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kvm.errors import HostError
from pytest_kvm.host.helpers import find
from pytest_kvm.host.remembering import Remembered

# Seconds for its help.
_PATIENCE = 10.0
# A file system of its own where the folder is read-only, for the daemon that cannot see to that itself; root has to.
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Virtiofsd:
    """One that is installed: that of QEMU up to 7 (options with ``-o``), or its successor, the ``modern`` one.

    ``refuses_writes`` says that it can serve a folder read-only.
    """

    path: Path
    modern: bool
    refuses_writes: bool

    def command(self, folder: Path, descriptor: int, *, readonly: bool) -> list[str]:
        """Return the command that serves a folder to whoever connects to the listening socket ``descriptor``.

        Raises HostError when it cannot.
        """
        root = os.geteuid() == 0
        if self.modern:
            # Without root there is nothing to be shut off from that is not the user's own.
            command = [str(self.path), f"--fd={descriptor}", f"--shared-dir={folder}"]
            command += ["--sandbox", "namespace" if root else "none"]
            if readonly and self.refuses_writes:
                return [*command, "--readonly"]
        else:
            if not root:
                raise HostError(f"{self.path} needs root; that of the project virtiofsd does not")
            source = str(folder).replace("\\", "\\\\").replace(",", "\\,")
            command = [str(self.path), f"--fd={descriptor}", "-o", f"source={source}", "-o", "log_level=warn"]
        if not readonly:
            return command
        if not root:
            raise HostError(f"{self.path} has no --readonly; a newer one has")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _READ_ONLY, "sh", str(folder), *command]


def find_virtiofsd(memory: Path) -> Virtiofsd:
    """Return the daemon, on PATH or where distributions keep it; what it can do is remembered in ``memory``.

    Raises HostError when there is none, or it does not run.
    """
    path = find("virtiofsd")
    if path is None:
        raise HostError("virtiofsd is not installed", hint="install the package virtiofsd")
    try:
        about = Remembered(memory).about(path, "virtiofsd", _ask)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{path} does not say what it can do: {error}") from error
    return Virtiofsd(path, modern=about["modern"], refuses_writes=about["readonly"])


def _ask(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    said = done.stdout + done.stderr
    return {"modern": "--shared-dir" in said, "readonly": "--readonly" in said}
