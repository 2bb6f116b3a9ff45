"""Which packages have what we need, and the package managers that install them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_kvm.errors import HostError

# What not every test needs: installed when it is named (--with).
OPTIONAL = ("uefi", "ipxe", "bridge-helper", "passt", "virtiofsd", "swtpm", "tesseract", "addr2line", "gdb")


@dataclass(frozen=True)
class Manager:
    """A package manager: how it installs, and what its distributions call what we need.

    ``install`` is the command before the packages' names; ``refresh`` has to run before, where the lists are not
    fetched by themselves. ``packages`` has QEMU (``qemu``), ``qemu-img`` and those of ``OPTIONAL`` that there are.
    ``rootless`` says that it must not run as root.
    """

    name: str
    install: tuple[str, ...]
    packages: Mapping[str, str]
    refresh: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    rootless: bool = False

    def commands(self, missing: Mapping[str, str], *, ask: bool = False) -> list[list[str]]:
        """Return what has to run for the missing programs (program → package, "" for what ``packages`` knows).

        ``ask`` lets sudo ask for a password, which needs a terminal. Raises HostError when there is no such package.
        """
        unknown = [name for name, package in missing.items() if not package and name not in self.packages]
        if unknown:
            raise HostError(
                f"no package of {self.name} is known that has {', '.join(unknown)}",
                hint="install it yourself, or name its package: --also PROGRAM=PACKAGE",
            )
        words = [word for name, package in missing.items() for word in (package or self.packages[name]).split()]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        prefix = [*self._sudo(ask), *(["env", *variables] if variables else [])]
        refresh = [[*prefix, *self.refresh]] if self.refresh else []
        return [*refresh, [*prefix, *self.install, *dict.fromkeys(words)]]

    def _sudo(self, ask: bool) -> list[str]:
        if self.rootless or os.geteuid() == 0:
            return []
        return ["sudo"] if ask else ["sudo", "-n"]


def run(commands: Iterable[list[str]], what: Iterable[str]) -> None:
    """Run the commands that install ``what``, their output on stderr; raises HostError with the one that failed."""
    for command in commands:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            plain = [word for word in command if word not in ("sudo", "-n")]
            raise HostError(
                f"cannot install {', '.join(what)}: {error}", hint=f"run as root: {' '.join(plain)}"
            ) from None


def find_manager() -> Manager:
    """Return the host's package manager; raises HostError when it is one that we do not know."""
    managers = _managers(platform.machine())
    for program, manager in managers.items():
        if shutil.which(program):
            return manager
    raise HostError(
        f"no package manager that can be driven was found (looked for {', '.join(managers)})",
        hint="install QEMU's system emulator and qemu-img yourself",
    )


def _managers(machine: str) -> dict[str, Manager]:
    """Return the managers by their programs, for a machine of uname(2): that of the system before those put on top."""
    arm = machine == "aarch64"
    # Under the same name nearly everywhere.
    common = {name: name for name in ("qemu-img", "passt", "virtiofsd", "swtpm", "gdb")} | {"addr2line": "binutils"}
    debian_qemu = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm", "riscv64": "qemu-system-riscv"}
    suse_qemu = {"x86_64": "qemu-x86", "aarch64": "qemu-arm"}
    return {
        "apt-get": Manager(
            "apt",
            ("apt-get", "install", "-y", "-q", "--no-install-recommends"),
            {
                **common,
                "qemu": debian_qemu.get(machine, "qemu-system"),
                "qemu-img": "qemu-utils",
                "uefi": "qemu-efi-aarch64" if arm else "ovmf",
                "ipxe": "ipxe-qemu",
                "bridge-helper": "qemu-system-common",
                "tesseract": "tesseract-ocr",
            },
            refresh=("apt-get", "update", "-q"),
            environment={"DEBIAN_FRONTEND": "noninteractive"},
        ),
        "dnf": Manager(
            "dnf",
            ("dnf", "install", "-y", "--setopt=install_weak_deps=False"),
            {
                **common,
                "qemu": "qemu-kvm",
                "uefi": "edk2-aarch64" if arm else "edk2-ovmf",
                "ipxe": "ipxe-roms-qemu",
                "bridge-helper": "qemu-common",
                "swtpm": "swtpm swtpm-tools",
                "tesseract": "tesseract",
            },
        ),
        # An upgrade of all: others are not supported there (pacman's -Sy alone).
        "pacman": Manager(
            "pacman",
            ("pacman", "-Syu", "--noconfirm", "--needed"),
            {
                **common,
                "qemu": f"qemu-system-{'aarch64' if arm else 'x86'}",
                "uefi": "edk2-aarch64" if arm else "edk2-ovmf",
                "bridge-helper": "qemu-common",
                "tesseract": "tesseract tesseract-data-eng",
            },
        ),
        "zypper": Manager(
            "zypper",
            ("zypper", "--non-interactive", "install", "--no-recommends"),
            {
                **common,
                "qemu": suse_qemu.get(machine, "qemu"),
                "uefi": "qemu-uefi-aarch64" if arm else "qemu-ovmf-x86_64",
                "ipxe": "qemu-ipxe",
                "bridge-helper": "qemu-tools",
                "tesseract": "tesseract-ocr",
            },
            refresh=("zypper", "--non-interactive", "refresh"),
        ),
        "apk": Manager(
            "apk",
            ("apk", "add", "--update-cache"),
            {
                **common,
                "qemu": f"qemu-system-{machine}",
                "uefi": "aavmf" if arm else "ovmf",
                "bridge-helper": "qemu-bridge-helper",
                "tesseract": "tesseract-ocr tesseract-ocr-data-eng",
            },
        ),
        # Its QEMU has qemu-img, firmware and network ROMs.
        "brew": Manager(
            "brew",
            ("brew", "install"),
            {name: name for name in ("qemu", "swtpm", "tesseract", "gdb")}
            | dict.fromkeys(("qemu-img", "uefi", "ipxe"), "qemu"),
            rootless=True,
        ),
    }
