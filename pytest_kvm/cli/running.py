"""What is done with a machine: one command in its guest, or staying with it until it ends."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.terminal import attach
from pytest_kvm.errors import MachineError
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from io import BufferedReader

    from pytest_kvm.machine.vm import VM

_CHUNK = 1 << 16


def run_command(vm: VM, command: str, *, timeout: float | None, data: bytes | None = None) -> int:
    """Run a command, its output as it comes where the guest has our shell; return its status.

    ``data`` is its standard input, ``timeout`` in seconds. Raises what ``VM.run`` does.
    """
    sys.stdout.flush()
    if vm.shell is None:
        result = vm.run(command, check=False, timeout=timeout, text=False, input=data)
        _write(sys.stdout.fileno(), result.stdout)
        _write(sys.stderr.fileno(), result.stderr)
        return result.returncode
    process = vm.popen(command, stdin=data is not None, text=False)
    if data is not None:
        process.feed(data)
    carriers = [
        threading.Thread(target=_carry, args=(stream, target.fileno()), daemon=True)
        for stream, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    ]
    for carrier in carriers:
        carrier.start()
    status = process.wait(timeout)  # it ends with the machine when this raises
    for carrier in carriers:
        carrier.join()
    return status


def stay(vm: VM, console: Path | None) -> None:
    """Stay until the machine ends, at its console where one is given and there is a terminal, or until Ctrl-C."""
    if console is not None and sys.stdin.isatty():
        print("This is its console; Ctrl-] ends the machine.", flush=True)
        attach(console)
        return
    with contextlib.suppress(KeyboardInterrupt):
        print("Ctrl-C ends it.", flush=True)
        vm.watch.wait_only(lambda: not vm.lives, Deadline(None))


def _carry(source: BufferedReader, target: int) -> None:
    # What ends the machine is told by whoever waits for the command; nobody may be there to read.
    with contextlib.suppress(MachineError, OSError):
        while data := source.read1(_CHUNK):
            _write(target, data)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
