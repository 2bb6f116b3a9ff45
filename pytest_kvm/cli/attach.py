"""``pytest-kvm attach``: a terminal at the console of a machine that a test has left running."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.terminal import attach, interrupted_by
from pytest_kvm.machine.attaching import CONSOLE

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "attach",
        help="attach this terminal to the console of a machine that a test has left running",
        description="Attach this terminal to the serial console of a machine that --kvm-keep, --pdb or "
        "'pytest-kvm reopen' holds. Ctrl-] leaves; the machine goes on.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the machine's directory, as it was printed")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if sys.stdin.isatty():
        print("The console of the machine; Ctrl-] leaves it.", file=sys.stderr)
    with interrupted_by(signal.SIGTERM, signal.SIGHUP):
        if not attach(options.folder / CONSOLE):
            print("\nThe machine has ended.", file=sys.stderr)
    return 0
