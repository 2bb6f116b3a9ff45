"""What does a person type? The command ``pytest-kvm``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from pytest_kvm.cli import attach, boot, doctor, images, reopen, sweep, templates
from pytest_kvm.errors import KVMError
from pytest_kvm.visible import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pytest-kvm``; return its exit status: 0, 1 for trouble, 2 for wrong arguments, 130 for Ctrl-C."""
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("pytest-kvm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KVMError, OSError) as error:
        print(f"pytest-kvm: {visible(str(error))}", file=sys.stderr)
        return 1
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the command line: each command sets ``run``, a function of the options."""
    parser = argparse.ArgumentParser(prog="pytest-kvm", description="Real virtual machines for pytest.")
    parser.add_argument("--version", action="version", version=f"pytest-kvm {version('pytest-kvm')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    boot.add_parser(commands)
    doctor.add_parser(commands)
    images.add_parser(commands)
    templates.add_parser(commands)
    sweep.add_parser(commands)
    reopen.add_parser(commands)
    attach.add_parser(commands)
    return parser
