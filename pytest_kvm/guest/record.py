"""What was run in a guest, as it is remembered: which command, by which way, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from pytest_kvm.errors import MachineError, SpecError, WaitTimeout
from pytest_kvm.journal import Journal

# Takes the status of a command that has ended, or why there will be none.
Ended = Callable[[int | None, str | None], None]


class Attempt:
    """A command on its way: whoever runs it says its ``status``, which stays None when the deadline comes first."""

    status: int | None = None


@contextlib.contextmanager
def recorded(journal: Journal | None, command: str, via: str) -> Iterator[Attempt]:
    """Remember the command that is run inside the block, if there is a journal to do it in.

    Its outcome is ``ended``, ``timeout``, ``lost`` (the guest, or the way to it), or the name of what else was raised.
    """
    attempt, began, outcome = Attempt(), time.monotonic(), ""
    trouble: dict[str, object] = {}
    try:
        yield attempt
        outcome = "timeout" if attempt.status is None else "ended"
    except BaseException as error:
        outcome = _outcome(error)
        trouble = {"error": str(error).partition("\n")[0]}
        raise
    finally:
        if journal is not None and outcome:
            seconds = round(time.monotonic() - began, 6)
            journal.add(
                {"command": command, "via": via, "outcome": outcome, "status": attempt.status, "seconds": seconds}
                | trouble
            )


def begun(journal: Journal | None, command: str, via: str) -> Ended:
    """Remember a command in the background; return what is to be called when it has ended, to remember that, too."""
    began = time.monotonic()

    def note(outcome: str, **more: object) -> None:
        if journal is not None:
            journal.add({"command": command, "via": via, "outcome": outcome, **more})

    def ended(status: int | None, lost: str | None) -> None:
        seconds = round(time.monotonic() - began, 6)
        if lost is None:
            note("ended", status=status, seconds=seconds)
        else:
            note("lost", status=status, seconds=seconds, error=lost)

    note("started")
    return ended


def _outcome(error: BaseException) -> str:
    if isinstance(error, SpecError):
        return ""  # there is no such way: nothing was run
    if isinstance(error, WaitTimeout):
        return "timeout"
    return "lost" if isinstance(error, (MachineError, OSError)) else type(error).__name__
