"""What copying into the guest and out of it have in common: paths, progress, and what came of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.errors import TransferError, WaitTimeout
from pytest_kvm.guest.result import OUTPUT_LIMIT, decoded
from pytest_kvm.images.progress import download_bar
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.guest.ssh.session import Read, Send, Session

PIECE = 1 << 15
# Less than that is there before anybody has looked.
_WORTH_A_BAR = 8 << 20
# Bytes of what the guest says, in which its last line is looked for.
_SAID = 8 << 10


class Way(Protocol):
    """What runs a script in the guest; pytest_kvm.guest.ssh.ssh.SSH is one."""

    name: str

    @property
    def via(self) -> str:
        """The way and the user."""
        ...

    def carry_out(
        self,
        script: str,
        what: str,
        deadline: Deadline,
        *,
        produce: Callable[[Send], None] | None = None,
        consume: Callable[[Read], None] | None = None,
    ) -> Session:
        """Run a script to its end or the deadline."""
        ...


class Progress:
    """How far a transfer has come: ``done`` bytes of ``total`` (None: nobody knows); a context, in which bars are."""

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None
        self._bars = contextlib.ExitStack()
        self._show: Callable[[int], None] | None = None

    def expect(self, total: int) -> None:
        """Say how much is to come; a bar is drawn if that is worth it."""
        self.total = total
        if total >= _WORTH_A_BAR:
            self._show = self._bars.enter_context(download_bar(total))

    def advance(self, size: int) -> None:
        """So many bytes more have come."""
        self.done += size
        if self._show is not None:
            self._show(self.done)

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._show = None
        self._bars.close()

    def __str__(self) -> str:
        return f"{self.done} bytes" if self.total is None else f"{self.done} of {self.total} bytes"


def guest_path(path: str) -> str:
    """Return a path that means the same in the guest, has a slash in it, and is no command's option.

    Raises ValueError.
    """
    if not path or "\0" in path:
        raise ValueError(f"{path!r} is no path in the guest")
    if path == "~" or path.startswith("~/"):  # what a shell would have understood, and scp does
        path = f".{path[1:]}"
    return path if path.startswith(("/", "./")) else f"./{path}"


def script(body: str, **variables: str) -> str:
    """Return a script for the guest's shell; in it, ``f TEXT`` ends it with an error in words of ours."""
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"{given}\nf() {{ printf '%s\\n' \"$1\" >&2; exit 1; }}\n{body}"


class Copying:
    """One transfer; ``verb`` and ``told`` say in errors what it does, and ``remote`` is the path in the guest."""

    def __init__(self, way: Way, verb: str, told: str, remote: str, timeout: float | None) -> None:
        self.progress = Progress()
        self._way = way
        self._verb = verb
        self._told = told
        self._remote = remote
        self._deadline = Deadline(timeout)

    def carry_out(
        self,
        script: str,
        *,
        produce: Callable[[Send], None] | None = None,
        consume: Callable[[Read], None] | None = None,
    ) -> Session:
        """Run the script, and return its session when all has gone well on the way.

        Raises what ``produce`` and ``consume`` raised, WaitTimeout, TransferError.
        """
        what = f"{self._verb} of {self._told}"
        with self.progress:
            session = self._way.carry_out(script, what, self._deadline, produce=produce, consume=consume)
            if session.failure is not None:
                raise session.failure
            # What puts something there sees the end of it, and removes what is not whole; what gets, may wait for ever.
            stop = session.stop if consume is None else session.kill
            if session.flooded:
                stop()
                raise self.error(f"the guest says more than {OUTPUT_LIMIT >> 20} MiB on {session.flooded}")
            if not session.complete:
                stop()
                limit = self._deadline.seconds or 0.0
                raise WaitTimeout(
                    f"VM {self._way.name!r}: {what} did not end within {limit:g} s ({self._way.via}); "
                    f"{self.progress} had been copied",
                    timeout=limit,
                )
        return session

    def check(self, session: Session) -> None:
        """Raise TransferError unless the guest's part has gone well."""
        if session.status != 0:
            said = decoded(bytes(session.err[-_SAID:])).strip() or decoded(bytes(session.out[-_SAID:])).strip()
            raise self.error(said.splitlines()[-1] if said else f"status {session.status}", decoded(bytes(session.err)))

    def error(self, reason: str, stderr: str = "") -> TransferError:
        """Return the error that says why the transfer did not succeed."""
        return TransferError(
            f"VM {self._way.name!r}: cannot {self._verb} {self._told} ({self._way.via}): {reason}",
            remote=self._remote,
            stderr=stderr,
        )
