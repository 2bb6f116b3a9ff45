"""The program qemu-img: how it is found, run, and listened to while it runs."""

from __future__ import annotations

import errno
import os
import re
import selectors
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import HostError, QemuImgError
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.process import dying_with_parent

# util/qemu-progress.c: what -p prints.
_FRACTION = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_PROGRESS = re.compile(r" *\(\d+(?:\.\d+)?/100%\)\r\n?")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Done:
    """A run of qemu-img that has ended: what it printed, without its progress, and how it ended."""

    command: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def find_qemu_img(qemu: Path | None, what_for: str) -> str:
    """Return the qemu-img that came with a QEMU, or else the one on PATH; raises HostError when there is none."""
    beside = qemu.resolve().parent / "qemu-img" if qemu is not None else None
    program = str(beside) if beside is not None and beside.exists() else shutil.which("qemu-img")
    if program is None:
        raise HostError(
            f"qemu-img is not installed; {what_for} it", hint="install it with 'pytest-kvm doctor --install'"
        )
    return program


def run(command: Sequence[str], progress: Callable[[float], object] | None = None) -> Done:
    """Run qemu-img until it ends, however that is; with ``progress`` it is told how far it is, from 0 to 1.

    When anything is raised meanwhile, by Ctrl-C or by ``progress``, it is killed. Raises OSError.
    """
    process = subprocess.Popen(
        dying_with_parent(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl-C is for Python, which then ends it, and removes what it was writing.
        start_new_session=True,
    )
    try:
        stdout, stderr = _listen(process, progress)
        process.wait()
    except BaseException:
        process.kill()
        raise
    finally:
        with process:  # closes the pipes, and waits
            pass
    return Done(
        tuple(command),
        process.returncode,
        _PROGRESS.sub("", stdout.decode(errors="backslashreplace")),
        stderr.decode(errors="backslashreplace"),
    )


def _listen(
    process: subprocess.Popen[bytes], progress: Callable[[float], object] | None
) -> tuple[bytearray, bytearray]:
    """Return what the process wrote to stdout and to stderr; neither has to wait for the other."""
    assert process.stdout is not None  # both are pipes
    assert process.stderr is not None
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    told = -1.0
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                heard = next(text for stream, text in said.items() if stream is key.fileobj)
                heard += chunk
                if progress is None or key.fileobj is not process.stdout:
                    continue
                for fraction in _FRACTION.findall(bytes(heard[-len(chunk) - 32 :])):
                    if float(fraction) / 100 > told:
                        told = float(fraction) / 100
                        progress(told)
    return said[process.stdout], said[process.stderr]


def qemu_img(binary: QEMUBinary, *arguments: str) -> str:
    """Run ``qemu-img`` and return what it prints; raises QemuImgError, HostError when it is not installed."""
    done = run([find_qemu_img(binary.path, "drives that are files need"), *arguments])
    if done.returncode:
        raise QemuImgError(
            f"qemu-img refuses: {done.stderr.strip()}",
            returncode=done.returncode,
            stderr=done.stderr,
            command=done.command,
        )
    return done.stdout


def create_overlay(binary: QEMUBinary, *, on: Path, format_: str, at: Path) -> None:
    """Make an overlay on the disk ``on``; raises OSError."""
    try:
        qemu_img(binary, "create", "-q", "-f", "qcow2", "-F", format_, "-b", str(on), str(at))
    except QemuImgError as error:
        raise OSError(errno.EIO, str(error), str(at)) from error
