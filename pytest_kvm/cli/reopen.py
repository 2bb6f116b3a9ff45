"""``pytest-kvm reopen``: a machine that was saved when its test failed, as it was then."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.running import run_command, stay
from pytest_kvm.cli.terminal import interrupted_by
from pytest_kvm.errors import MachineError
from pytest_kvm.guest.runner import DEFAULT_TIMEOUT
from pytest_kvm.machine.attaching import Attachable
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.preserved import RUNNING, Preserved
from pytest_kvm.machine.settings import Settings

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "reopen",
        help="bring back a machine that --kvm-save-state has saved",
        description="Bring back the machine that --kvm-save-state has saved when its test failed, as it was then: "
        "prints how to attach to it, and attaches this terminal to its serial console. Ctrl-] ends it. The directory "
        "stays as it is.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the machine's directory in the test's artifacts")
    parser.add_argument("--run", dest="command", metavar="COMMAND", help="run this in the guest, and end the machine")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=DEFAULT_TIMEOUT, help="how long it may take (default: 60)"
    )
    parser.add_argument(
        "--no-console", action="store_true", help="wait for Ctrl-C, SIGTERM or the machine's end instead"
    )
    parser.add_argument("--qemu", metavar="PATH", help="the QEMU to use (as --kvm-qemu)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the status is that of ``--run``'s command."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupted_by(signal.SIGTERM, signal.SIGHUP))
        settings = Settings(qemu=options.qemu, monitor=True)
        launcher = stack.enter_context(contextlib.closing(Launcher(settings, report=_report)))
        preserved = Preserved.load(options.folder, launcher.binary)
        vm = stack.enter_context(contextlib.closing(launcher.reopen(preserved)))
        if options.command is not None:
            return _run_command(vm, preserved, options.command, options.timeout)
        attachable = stack.enter_context(contextlib.closing(Attachable(vm)))
        _introduce(preserved, attachable)
        stay(vm, None if options.no_console else attachable.console)
        print("\nThe machine has ended; its directory is as it was.")
    return 0


def _report(line: str) -> None:
    print(f"pytest-kvm: {line}", file=sys.stderr)


def _introduce(preserved: Preserved, attachable: Attachable) -> None:
    about = preserved.about
    print(f"Saved {about['saved']} when {about['test']} failed, {preserved.status} then.")
    if not preserved.loaded:
        print("Only its disks were saved: it boots with them.")
    print(attachable.describe(), flush=True)


def _run_command(vm: VM, preserved: Preserved, command: str, timeout: float) -> int:
    if preserved.loaded and preserved.status != RUNNING:
        raise MachineError(f"VM {vm.name!r} is {preserved.status}: its guest runs no command; look at it with QMP")
    return run_command(vm, command, timeout=timeout)
