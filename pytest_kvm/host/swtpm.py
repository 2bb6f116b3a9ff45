"""The daemon that is a guest's TPM."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.errors import HostError
from pytest_kvm.host.helpers import find


def swtpm_command(version: str, state: Path, descriptor: int) -> list[str]:
    """Return the command that is a TPM of a version, ``2.0`` or ``1.2``, for whoever is connected by ``descriptor``.

    It keeps its state in a folder, and ends when the connection does. Raises HostError when swtpm is not installed.
    """
    path = find("swtpm")
    if path is None:
        raise HostError(
            "swtpm, which a machine with a TPM needs, is not installed",
            hint="install it with 'pytest-kvm doctor --install --with swtpm'",
        )
    kind = ["--tpm2"] if version == "2.0" else []
    return [
        *(str(path), "socket", *kind, "--terminate"),
        *("--tpmstate", f"dir={state},mode=0600", "--ctrl", f"type=unixio,clientfd={descriptor}"),
    ]
