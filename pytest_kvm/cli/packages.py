"""Installing programs with the host's package manager."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_kvm.errors import HostError

# Debian's and Ubuntu's package of the emulator, by the machine's name in uname(2).
_DEBIAN_QEMU = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm", "riscv64": "qemu-system-riscv"}


@dataclass(frozen=True)
class Manager:
    """A package manager: what installs, what refreshes its lists first, and the packages of the programs we need."""

    install_command: tuple[str, ...]
    refresh_command: tuple[str, ...]
    packages: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def commands(self, missing: Mapping[str, str]) -> list[list[str]]:
        """Return what has to run for the missing programs (program → package, "" for what ``packages`` knows)."""
        names = [package or self.packages[program] for program, package in missing.items()]
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        prefix = [*root, *(["env", *variables] if variables else [])]
        return [[*prefix, *self.refresh_command], [*prefix, *self.install_command, *names]]

    def install(self, missing: Mapping[str, str]) -> None:
        """Install the missing programs; raises HostError with the command that failed."""
        for command in self.commands(missing):
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise HostError(
                    f"cannot install {', '.join(missing)}: {error}",
                    hint=f"run as root: {' '.join(word for word in command if word not in ('sudo', '-n'))}",
                ) from None


def find_manager() -> Manager:
    """Return the host's package manager; raises HostError when it is one that we do not know."""
    if shutil.which("apt-get"):
        return Manager(
            install_command=("apt-get", "install", "-y", "-q", "--no-install-recommends"),
            refresh_command=("apt-get", "update", "-q"),
            packages={
                "qemu": _DEBIAN_QEMU.get(platform.machine(), "qemu-system"),
                "qemu-img": "qemu-utils",
            },
            environment={"DEBIAN_FRONTEND": "noninteractive"},
        )
    raise HostError(
        "no package manager that can be driven was found (looked for apt-get)",
        hint="install QEMU's system emulator and qemu-img yourself",
    )
