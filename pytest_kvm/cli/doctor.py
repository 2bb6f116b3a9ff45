"""``pytest-kvm doctor``: what is here, what is missing, what mends it, and its installation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pytest_kvm.cli import packages
from pytest_kvm.cli.checks import examine
from pytest_kvm.cli.checks.programs import also
from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.cli.output import print_json
from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.visible import visible

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
_INDENT = " " * 25


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "doctor",
        help="say what is here, what is missing, and what mends it; install it",
        description="Says what this host has for virtual machines, and what mends what is missing. The exit status is"
        " 1 when no machine can run.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--install",
        action="store_true",
        help="install what is missing and needed, with apt, dnf, pacman, zypper, apk or brew",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before installing (as where CI is set)")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="wanted",
        metavar="NAME",
        choices=[*packages.OPTIONAL, "all"],
        help="install this, too, if it is missing: %(choices)s",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PROGRAM=PACKAGE",
        help="need this, too (a name on PATH, or the absolute path of any file)",
    )
    parser.add_argument("--qemu", metavar="PATH", help="the QEMU to look at (as --kvm-qemu)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the status is 1 when something needed is missing."""
    rows = _rows(options)
    missing = _installable(rows, options.wanted)
    if options.install and missing:
        if not _install(missing, options.yes):
            return 1
        rows = _rows(options)
    trouble = [row for row in rows if row.needed and not row.well]
    if options.json:
        print_json({"ok": not trouble, "rows": [row.facts() for row in rows]})
    else:
        _print(rows)
        _print_summary(trouble, rows, options.install)
    return 1 if trouble else 0


def _rows(options: argparse.Namespace) -> list[Row]:
    named = {program: package or program for program, _, package in (entry.partition("=") for entry in options.also)}
    cache = cache_dir()
    try:
        subject = Subject(options.qemu, cache, binary=find_qemu(options.qemu, memory=cache / "host"))
    except QEMUNotFound as error:
        subject = Subject(options.qemu, cache, trouble=error)
    return [*examine(subject), *also(named)]


def _installable(rows: Sequence[Row], wanted: Sequence[str]) -> dict[str, str]:
    """Return what is missing and needed, or wanted, each with its package ("": the manager knows)."""
    names = packages.OPTIONAL if "all" in wanted else wanted
    return {
        row.name: row.package
        for row in rows
        if row.state is State.MISSING and row.package is not None and (row.needed or row.name in names)
    }


def _install(missing: dict[str, str], yes: bool) -> bool:
    """Install after asking; return False if that was not wanted. All of it is told on stderr."""
    asks = sys.stdin.isatty()
    commands = packages.find_manager().commands(missing, ask=asks)
    for command in commands:
        print(f"to install: {' '.join(command)}", file=sys.stderr)
    if not (yes or os.environ.get("CI", "").lower() not in ("", "0", "false")):
        if not asks:
            print("not installed: there is no terminal to ask at; say --yes", file=sys.stderr)
            return False
        print("go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return False
    packages.run(commands, missing)
    return True


def _print(rows: Sequence[Row]) -> None:
    for group, members in groupby(rows, lambda row: row.group):
        print(group)
        for row in members:
            purpose = f" - {row.purpose}" if row.purpose else ""
            print(f"  {row.state.value:8} {row.name:14}{visible(row.text)}{purpose}")
            for line in row.fix.splitlines():
                print(f"{_INDENT}fix: {line}")


def _print_summary(trouble: Sequence[Row], rows: Sequence[Row], installed: bool) -> None:
    optional = [row.name for row in rows if row.name in packages.OPTIONAL and row.state is State.MISSING]
    if optional:
        print(f"Not every test needs {', '.join(optional)}: pytest-kvm doctor --install --with NAME")
    if not trouble:
        print("Machines can run here.")
        return
    print(f"No machine can run here: {', '.join(f'{row.name} is {row.state.value}' for row in trouble)}.")
    if not installed and any(row.package is not None and row.state is State.MISSING for row in trouble):
        print("pytest-kvm doctor --install installs what is missing.")
