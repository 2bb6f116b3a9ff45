"""The programs of binutils that read object files: who builds kernels has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from pytest_kvm.waiting import Deadline


class Undecodable(Exception):
    """Something cannot be read from an object file; the text says why."""


def run(program: str, *arguments: str, deadline: Deadline, stdin: str = "") -> str:
    """Run a program, which has until the deadline, and return what it says; raises Undecodable."""
    # Some builds look for debug information in the network.
    environment = {name: value for name, value in os.environ.items() if name != "DEBUGINFOD_URLS"} | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=deadline.remaining(),
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise Undecodable(f"{program} is not installed; install binutils") from None
    except OSError as error:
        raise Undecodable(f"{program} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Undecodable(f"{program} {_last(arguments)} did not end within {deadline.seconds or 0.0:g} s") from None
    if done.returncode:
        how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        said = done.stderr.strip().rpartition("\n")[2][:200]
        raise Undecodable(f"{program} {_last(arguments)} ended with {how}{f': {said}' if said else ''}")
    return done.stdout


def _last(arguments: Sequence[str]) -> str:
    return arguments[-1] if arguments else ""
