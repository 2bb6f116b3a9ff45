"""Running a command in the guest and judging what came of it, whichever way it travels."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, NamedTuple, overload

from pytest_kvm.errors import CommandTimeout, KVMError, MachineError, TooMuchOutput
from pytest_kvm.guest.record import recorded
from pytest_kvm.guest.result import (
    OUTPUT_LIMIT,
    Check,
    Command,
    CompletedCommand,
    check_status,
    decoded,
    script_of,
    shorten,
)
from pytest_kvm.journal import Journal
from pytest_kvm.waiting import Deadline, Usual, Watch

DEFAULT_TIMEOUT = Usual(60)
# The status of a command whose answer was lost, where a test expected that.
LOST = -1


class Ended(NamedTuple):
    """How a script ended: ``status`` is None when the deadline came first; then ``fate`` says what became of it.

    Or more came than is kept on the stream ``flooded``.
    """

    status: int | None
    out: bytes
    err: bytes
    fate: str = "was killed"
    flooded: str = ""


class Runner(ABC):
    """What has ``run``. ``name`` is the machine's, ``internet`` whether the guest reaches the outside.

    What is run goes into the ``journal``.
    """

    name: str
    internet: bool
    journal: Journal | None = None

    @abstractmethod
    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        """Run a script to its end; ``shown`` is what the user wrote, ``data`` goes to its stdin."""

    @property
    @abstractmethod
    def _waits_on(self) -> Watch:
        """What its waits are on."""

    @property
    def expects_loss(self) -> bool:
        """Whether a test expects the guest to go away under its commands."""
        return self._waits_on.forgiving > 0

    @property
    @abstractmethod
    def via(self) -> str:
        """The way and the user, for messages: ``shell, as root``."""

    @overload
    def run(
        self,
        command: Command,
        *,
        check: Check = ...,
        timeout: float | None = ...,
        input: str | bytes | None = ...,
        env: Mapping[str, str] | None = ...,
        cwd: str | None = ...,
        text: Literal[True] = ...,
    ) -> CompletedCommand[str]: ...
    @overload
    def run(
        self,
        command: Command,
        *,
        check: Check = ...,
        timeout: float | None = ...,
        input: str | bytes | None = ...,
        env: Mapping[str, str] | None = ...,
        cwd: str | None = ...,
        text: Literal[False],
    ) -> CompletedCommand[bytes]: ...
    def run(
        self,
        command: Command,
        *,
        check: Check = True,
        timeout: float | None = DEFAULT_TIMEOUT,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        text: bool = True,
    ) -> CompletedCommand[str] | CompletedCommand[bytes]:
        """Run a command in the guest, wait for its end, and return its status and output.

        ``command`` is a script of its own for the guest's ``sh``, as after ``sh -c``; a list is quoted word by word.
        Neither directory, variables nor traps outlive it. What it leaves in the background goes on, even when it holds
        stdout. ``check`` is the status that is expected: True for 0, False for any, a number, or several. ``timeout``
        is in seconds (None: no limit; by default 60, under emulation 120); on expiry the command's process group is
        killed. ``input`` goes to stdin, which is empty otherwise. ``env`` adds variables, ``cwd`` is the directory.
        Output is text, where bytes that are not UTF-8 become ``\\xNN``, unless ``text=False``. Inside ``with
        vm.expect_panic():`` and its like, the status of a command that loses its answer is -1 with ``check=False``.

        Raises CommandError for a status that was not expected, CommandTimeout with the output so far, TooMuchOutput for
        more than 256 MiB of stdout or stderr, and another MachineError when the guest or the way to it is lost;
        ValueError for a NUL byte and for a name in ``env`` that no shell can export.
        """
        timeout = self._waits_on.limit(timeout)
        started = time.monotonic()
        shown = script_of(command)
        script = script_of(command, env=env, cwd=cwd)
        data = input.encode() if isinstance(input, str) else input
        try:
            with recorded(self.journal, shown, self._way()) as attempt:
                ended = self._execute(script, shown, data, Deadline(timeout))
                attempt.status = ended.status
        except MachineError:
            if check is not False or not self.expects_loss:
                raise
            ended = Ended(LOST, b"", b"")
        seconds = time.monotonic() - started
        if ended.flooded:
            raise self._flood(ended, shown)
        if ended.status is None:
            raise CommandTimeout(
                f"VM {self.name!r}: command did not end within {timeout or 0.0:g} s and {ended.fate} ({self.via}): "
                f"{shorten(shown)}\n{len(ended.out)} bytes of stdout and {len(ended.err)} of stderr came until then; "
                "they are the error's .stdout and .stderr",
                timeout=timeout or 0.0,
                command=shown,
                stdout=decoded(ended.out) if text else ended.out,
                stderr=decoded(ended.err) if text else ended.err,
            )
        if not text:
            result = CompletedCommand(shown, ended.status, ended.out, ended.err, seconds)
            return check_status(result, check, name=self.name, via=self.via, internet=self.internet)
        readable = CompletedCommand(shown, ended.status, decoded(ended.out), decoded(ended.err), seconds)
        return check_status(readable, check, name=self.name, via=self.via, internet=self.internet)

    def _flood(self, ended: Ended, shown: str) -> TooMuchOutput:
        return TooMuchOutput(
            f"VM {self.name!r}: command wrote more than {OUTPUT_LIMIT >> 20} MiB to {ended.flooded} and {ended.fate} "
            f"({self.via}): {shorten(shown)}\nLet it write to a file, and copy that with vm.ssh.get(), or read from "
            "vm.popen() while it writes.",
            command=shown,
            limit=OUTPUT_LIMIT,
        )

    def _way(self) -> str:
        """Return ``via`` for the journal; where there is none, running the command says so."""
        try:
            return self.via
        except KVMError:
            return ""
