"""``pytest-kvm doctor``: what is here, what is missing, and its installation."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.packages import Manager, find_manager
from pytest_kvm.errors import HostError, QEMUNotFound
from pytest_kvm.host.accel import choose
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.qemu.binary import QEMUBinary, find_qemu

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "doctor",
        help="say what is here and what is missing",
        description="Say what this host has for virtual machines.",
    )
    parser.add_argument("--install", action="store_true", help="install what is missing with the package manager")
    parser.add_argument("--yes", action="store_true", help="do not ask before installing")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PROGRAM=PACKAGE",
        help="install this, too, if it is missing (a name on PATH, or the absolute path of any file)",
    )
    parser.add_argument("--qemu", metavar="PATH", help="the QEMU to look at (as --kvm-qemu)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the status is 1 when something needed is missing."""
    also = {program: package or program for program, _, package in (entry.partition("=") for entry in options.also)}
    missing = _missing(options.qemu, also)
    if missing and options.install:
        manager = find_manager()
        if not _agreed(manager, missing, options.yes):
            return 1
        manager.install(missing)
        missing = _missing(options.qemu, also)
    binary = _report(options.qemu)
    for program, package in missing.items():
        print(f"missing      {program}{f' (package {package})' if package else ''}")
    if missing and not options.install:
        print("             pytest-kvm doctor --install installs it")
    return 1 if missing or binary is None else 0


def _missing(qemu: str | None, also: dict[str, str]) -> dict[str, str]:
    """Return the programs that are needed and not there, each with its package ("": the manager knows)."""
    missing = {}
    try:
        find_qemu(qemu)
    except QEMUNotFound:
        missing["qemu"] = ""
    if shutil.which("qemu-img") is None:
        missing["qemu-img"] = ""
    missing.update({program: package for program, package in also.items() if not _is_there(program)})
    return missing


def _is_there(program: str) -> bool:
    """Return whether a program is on PATH; an absolute path may be that of any file."""
    return Path(program).exists() if os.path.isabs(program) else shutil.which(program) is not None


def _agreed(manager: Manager, missing: dict[str, str], yes: bool) -> bool:
    print("installing   " + "; ".join(" ".join(command) for command in manager.commands(missing)), flush=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        print("             not asked for (no terminal): say --yes", file=sys.stderr)
        return False
    return input("             go on? [y/N] ").strip().lower() in ("y", "yes")


def _report(qemu: str | None) -> QEMUBinary | None:
    print(f"cache        {cache_dir()}")
    try:
        binary = find_qemu(qemu, memory=cache_dir() / "host")
    except QEMUNotFound as error:
        print(f"QEMU         {error}")
        return None
    print(f"QEMU         {binary.version_text} ({binary.path}), sandbox: {'yes' if binary.sandbox else 'no'}")
    try:
        print(f"accelerator  {choose('auto', binary, again=True)}")
    except HostError as error:
        print(f"accelerator  {error}")
    return binary
