"""``pytest-kvm boot``: a machine to try things in by hand, or for one command of a script."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.fields import add_fields, read_fields
from pytest_kvm.cli.running import run_command, stay
from pytest_kvm.cli.terminal import interrupted_by
from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.images.described import read_project
from pytest_kvm.machine.attaching import Attachable
from pytest_kvm.machine.evidence import original
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.run import shown
from pytest_kvm.machine.settings import Settings
from pytest_kvm.qemu.byhand import by_hand
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import plan_drives
from pytest_kvm.visible import visible

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# What 'git bisect run' takes for "cannot be tested".
CANNOT = 125


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "boot",
        help="boot a machine: a terminal at its console, or one command",
        description="Boot a machine, print how to get at it, and attach this terminal to its serial console; Ctrl-] "
        "ends it. Files that are given are not written, and nothing is left.",
        epilog="With --run, the status is the command's; 1 when the machine fails (a panic, say), and 125 when this "
        "host cannot run it or the options contradict each other: 'git bisect run' skips then.",
    )
    add_fields(parser)
    parser.add_argument("--run", dest="command", metavar="COMMAND", help="run this in the guest, and end the machine")
    parser.add_argument(
        "--run-timeout", metavar="SECONDS", type=float, help="how long that may take (default: as long as it takes)"
    )
    parser.add_argument("--stdin", action="store_true", help="give standard input to --run's command")
    parser.add_argument(
        "--no-console", action="store_true", help="wait for Ctrl-C, SIGTERM or the machine's end instead"
    )
    parser.add_argument(
        "--print-command", action="store_true", help="print QEMU's command line, to be run by hand, and boot nothing"
    )
    parser.add_argument("--qemu", metavar="PATH", help="the QEMU to use (as --kvm-qemu)")
    parser.add_argument("--offline", action="store_true", help="fetch nothing (as --kvm-offline)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; see its help for the status."""
    try:
        return _run(options)
    except (HostError, SpecError) as error:
        if options.command is None:
            raise
        print(f"pytest-kvm: {visible(str(error))}", file=sys.stderr)
        return CANNOT


def _run(options: argparse.Namespace) -> int:
    spec = read_fields(options)
    interactive = options.command is None
    if options.print_command:
        spec = spec.replace(autostart=False)
    elif interactive and spec.ready is None and spec.start == "boot":
        spec = spec.replace(ready="none")  # whoever looks on sees it boot
    settings = Settings(
        qemu=options.qemu, offline=options.offline, images=read_project(Path.cwd()), monitor=interactive
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupted_by(signal.SIGTERM, signal.SIGHUP))
        launcher = stack.enter_context(contextlib.closing(Launcher(settings, report=_report)))
        vm = stack.enter_context(contextlib.closing(launcher.create(spec)))
        if options.print_command:
            print(_command_line(vm))
            return 0
        if not interactive:
            return _run_command(vm, options)
        _introduce_and_stay(stack, vm, console=not options.no_console)
    return 0


def _report(line: str) -> None:
    print(f"pytest-kvm: {line}", file=sys.stderr)


def _command_line(vm: VM) -> str:
    """Return the command line of the machine with its monitor and console in the terminal, and memory of its own."""
    plan = vm._plan
    originals = {planned.id: original(planned) for planned in plan_drives(plan.spec)}
    files = {name: file for name, file in originals.items() if file is not None}
    drives = [(planned, files[planned.id]) for planned in plan_drives(plan.spec) if planned.id in files]
    return shown(build(by_hand(replace(plan, drives=drives), files), vm._binary))


def _run_command(vm: VM, options: argparse.Namespace) -> int:
    data = sys.stdin.buffer.read() if options.stdin else None
    status = run_command(vm, options.command, timeout=options.run_timeout, data=data)
    for finding in vm.watcher.findings.untold():
        _report(visible(f"VM {vm.name!r}: {finding.title}"))
    return status


def _introduce_and_stay(stack: contextlib.ExitStack, vm: VM, *, console: bool) -> None:
    attachable = stack.enter_context(contextlib.closing(Attachable(vm)))
    started = vm.started
    if started is not None:
        reason = f" ({visible(started.reason)})" if started.reason else ""
        how = "cloned" if started.kind == "clone" else "booted"
        print(f"VM {vm.name!r} was {how} in {started.seconds:.2f} s{reason}, accel={vm.accel}.")
    print(attachable.describe(), flush=True)
    stay(vm, attachable.console if console else None)
    print("\nThe machine has ended.")
