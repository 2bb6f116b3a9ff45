"""A guest command in the background, with subprocess.Popen's verbs."""

from __future__ import annotations

import io
import signal
from typing import IO, TYPE_CHECKING, Any

from pytest_kvm.errors import CommandTimeout, MachineError, TooMuchOutput
from pytest_kvm.guest.result import OUTPUT_LIMIT, decoded, shorten
from pytest_kvm.guest.shell.job import Job
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer

    from pytest_kvm.guest.shell.shell import Shell


class GuestProcess:
    """A command that runs in the guest, in a process group of its own.

    ``args`` is its script; ``stdin`` (None unless it was asked for), ``stdout`` and ``stderr`` are files, of text
    unless ``text=False`` was said; output is kept until it is read, so the command does not wait for its reader before
    there are 256 MiB of either.
    As a context manager it is killed at the end of the block, unless it has ended; otherwise it ends with the machine.
    """

    def __init__(self, shell: Shell, iothread: IOThread, job: Job, *, args: str, text: bool) -> None:
        self.args = args
        self.job = job
        self._shell = shell
        self._io = iothread
        self._text = text
        # Typed as subprocess.Popen's are: what they carry depends on ``text``.
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] = _file(job.out, text)
        self.stderr: IO[Any] = _file(job.err, text)
        if job.stdin:
            raw: Any = _Input(job, shell, iothread)  # unbuffered: what is written goes out at once
            self.stdin = io.TextIOWrapper(raw, encoding="utf-8", write_through=True) if text else raw

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the command runs."""
        return self.job.status

    def poll(self) -> int | None:
        """Return the exit status, None while the command runs; raises ShellLost when there will be none."""
        if self.job.lost is not None:
            raise self._shell.lost(self)
        return self.job.status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end and return its exit status.

        ``timeout`` is in seconds (None: no limit). Raises CommandTimeout, with the command still running.
        """
        if not self._shell.wait(self.job, Deadline(timeout)):
            raise self._late(timeout)
        status = self.poll()
        return 0 if status is None else status  # never None: the wait is over

    def _late(self, timeout: float | None) -> CommandTimeout:
        full = self.job.full
        why = f"; it waits for its {full} to be read, of which there are {OUTPUT_LIMIT >> 20} MiB" if full else ""
        return CommandTimeout(
            f"command is still running after {timeout or 0.0:g} s{why}: {shorten(self.args)}",
            timeout=timeout or 0.0,
            command=self.args,
            stdout="",
            stderr="",
        )

    def communicate(
        self, input: str | bytes | None = None, timeout: float | None = None
    ) -> tuple[str | bytes, str | bytes]:
        """Send ``input`` and the end of stdin, wait for the command's end, return what it wrote and was not read.

        Raises CommandTimeout, and TooMuchOutput for more than 256 MiB of either, with the command still running.
        """
        if self.job.stdin:
            self.feed(input.encode() if isinstance(input, str) else input or b"")
        if not self._shell.wait(self.job, Deadline(timeout), or_full=True):
            raise self._late(timeout)
        if self.job.full:
            raise TooMuchOutput(
                f"command wrote more than {OUTPUT_LIMIT >> 20} MiB to {self.job.full}, and waits for it to be read: "
                f"{shorten(self.args)}",
                command=self.args,
                limit=OUTPUT_LIMIT,
            )
        self.poll()
        return self.output()

    def feed(self, data: bytes) -> None:
        """Send ``data`` and the end of stdin without waiting for the command to read it."""
        # A command need not read its standard input to the end, as in a pipe.
        self._io.post(self.job.post, data)
        self._io.post(self.job.post, None)

    def output(self) -> tuple[str | bytes, str | bytes]:
        """Return what arrived on stdout and stderr and was not read."""
        if self.job.ended:
            return self.stdout.read(), self.stderr.read()  # with what the files have read ahead
        out, err = self.job.out.everything(), self.job.err.everything()
        return (decoded(out), decoded(err)) if self._text else (out, err)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens when it has ended.

        What a killed command has written beyond what is kept is lost.
        """
        if number == signal.SIGKILL:
            self.job.drop()  # or it would be seen to end only when somebody reads
        self._shell.signal(self.job, signal.Signals(number).name.removeprefix("SIG"))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> GuestProcess:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.job.ended:
            return
        try:
            self.kill()
            self._shell.wait(self.job, Deadline(10))
        except MachineError:
            # That nobody answers says less than the error that left the block.
            if value is None:
                raise


class _Input(io.RawIOBase):
    """The command's standard input as a file."""

    def __init__(self, job: Job, shell: Shell, iothread: IOThread) -> None:
        super().__init__()
        self._job = job
        self._shell = shell
        self._io = iothread

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        content = bytes(data)
        self._shell.send(self._job, content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._io.post(self._job.post, None)
        super().close()


def _file(stream: io.RawIOBase, text: bool) -> IO[Any]:
    buffered = io.BufferedReader(stream)
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace") if text else buffered
