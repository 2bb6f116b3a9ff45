"""The QEMU guest agent, where the guest runs one: commands, files, clock and file systems without a network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_kvm.errors import AgentError, MachineError, QEMUExited, WaitTimeout
from pytest_kvm.guest.agent import answers
from pytest_kvm.guest.agent.port import SILENT, AgentPort
from pytest_kvm.guest.result import OUTPUT_LIMIT, shorten
from pytest_kvm.guest.runner import DEFAULT_TIMEOUT, Ended, Runner
from pytest_kvm.qemu.cmdline import AGENT_PORT
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.qmp import Event
from pytest_kvm.waiting import Deadline, Usual, Watch

if TYPE_CHECKING:
    import socket

T = TypeVar("T")

PING_TIMEOUT = Usual(10)
# There is no event for the end of a command: the agent has to be asked again and again. Short commands are not kept
# waiting, and long ones are not disturbed much.
_FIRST_PAUSE = 0.005
_LAST_PAUSE = 0.1
_SLOWER = 1.5
# Killed commands end, and files are closed, within milliseconds; a guest that does not answer is given this long.
_PATIENCE = 5.0
# A line of JSON holds a third more than that; the agent reads lines of up to 64 MiB.
_CHUNK = 1 << 20
# qga/commands.c
_KEPT = 16 << 20
# A group of its own for the command, so that all of it can be killed; the agent's own group has the agent in it.
_START = 'command -v setsid >/dev/null 2>&1 && exec setsid /bin/sh -c "$0" sh; exec /bin/sh -c "$0" sh'
# Of several spellings the only one that dash, bash and busybox understand.
_KILL = 'kill -KILL "-$0" 2>/dev/null || kill -KILL "$0"'


class Agent(Runner):
    """Talks to the QEMU guest agent (``qemu-ga``) in the guest; usable from any thread.

    What each of its commands needs and returns is in QEMU's documentation ("QEMU Guest Agent Protocol Reference").
    ``timeout`` is in seconds everywhere (None: no limit); when the agent is not there yet, it is waited for. Every verb
    raises WaitTimeout when it does not answer in time, AgentError when it refuses or goes away, and at once the
    machine's own failure.

    ``run`` ends when the command has, and everybody who holds its stdout or stderr: send what stays in the background
    elsewhere. The agent keeps 16 MiB of each; that or more is an AgentError.

    ``asked(mode, True)`` is told when the guest is about to be asked to shut down, and ``asked(mode, False)`` when it
    has refused; the mode is QEMU's: ``powerdown``, ``halt`` or ``reboot``.
    """

    def __init__(
        self,
        *,
        name: str,
        connection: socket.socket,
        io: IOThread,
        watch: Watch,
        asked: Callable[[str, bool], None] = lambda _, __: None,
        internet: bool = False,
    ) -> None:
        self.name = name
        self.internet = internet
        self._io = io
        self._watch = watch
        self._asked = asked
        self._port = io.call(AgentPort, connection, name)

    # What the machine tells. In the I/O thread.

    def heed(self, event: Event) -> None:
        """QEMU tells something, which may be news of the agent."""
        match event:
            case {"event": "VSERPORT_CHANGE", "data": {"id": "port-agent", "open": bool(is_open)}}:
                self._port.changed(is_open)
            case {"event": "RESET"}:
                self._port.reset()
            case {"event": "SUSPEND" | "SUSPEND_DISK"}:
                self._port.lose("the guest was suspended")

    def end(self) -> None:
        """The machine went off."""
        self._port.end()

    # In the caller's thread.

    def close(self) -> None:
        """Close the connection; what is in flight is lost."""
        self._io.call(self._port.end)

    def wait(self, deadline: Deadline) -> bool:
        """Wait until the agent answers; return False when the deadline came first."""
        while True:
            try:
                self._ask("guest-ping", None, deadline)
            except WaitTimeout:
                return False
            except AgentError as error:
                if error.error_class or self._port.ended:
                    raise
                continue  # it was started again in this moment
            return True

    def ping(self, *, timeout: float | None = PING_TIMEOUT) -> None:
        """Return when the agent answers."""
        self._ask("guest-ping", None, self._watch.deadline(timeout))

    def execute(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> Any:
        """Run one of the agent's commands (``guest-get-osinfo``) and return what it returns.

        Those that never return anything, such as ``guest-shutdown``, return ``{}`` once they were not refused.
        """
        deadline = self._watch.deadline(timeout)
        if name != "guest-shutdown":
            return self._ask(name, arguments, deadline)
        mode = str((arguments or {}).get("mode", "powerdown"))
        self._asked(mode, True)
        try:
            return self._ask(name, arguments, deadline)
        except AgentError:
            self._asked(mode, False)
            raise

    def commands(self, *, timeout: float | None = DEFAULT_TIMEOUT) -> frozenset[str]:
        """Return the names of the commands that the agent has and may run."""
        return self._read(answers.names, "guest-info", None, self._watch.deadline(timeout))

    def _read(
        self,
        read: Callable[[Any], T],
        command: str,
        arguments: Mapping[str, object] | None,
        deadline: Deadline,
        life: int | None = None,
    ) -> T:
        """Ask, and return what ``read`` makes of the answer; raises AgentError when that is not what it should be."""
        answer = self._ask(command, arguments, deadline, life)
        try:
            return read(answer)
        except answers.UNFIT:
            raise AgentError(
                f"VM {self.name!r}: guest agent command {command!r} returned something else than it should: "
                f"{shorten(str(answer))}",
                command=command,
            ) from None

    def _ask(
        self, command: str, arguments: Mapping[str, object] | None, deadline: Deadline, life: int | None = None
    ) -> Any:
        self._watch.check()
        work = asyncio.run_coroutine_threadsafe(self._port.ask(command, arguments, life=life), self._io.loop)
        work.add_done_callback(lambda _: self._watch.notify())
        try:
            if not self._watch.wait_for(work.done, deadline):
                raise self._late(command, deadline)
            return work.result()
        except AgentError:
            if self._port.ended:
                # The connection breaks a moment before the process has ended, which tells more.
                self._watch.wait_only(lambda: self._watch.failed, Deadline(1))
                self._watch.check()
            raise
        except QEMUExited as end:
            if command in SILENT and end.returncode == 0:
                return {}
            raise
        finally:
            work.cancel()

    def _late(self, command: str, deadline: Deadline) -> WaitTimeout:
        timeout = deadline.seconds or 0.0
        return WaitTimeout(
            f"VM {self.name!r}: the guest agent did not answer {command!r} within {timeout:g} s: {self._silence()}",
            timeout=timeout,
        )

    def _silence(self) -> str:
        """Return why no answer may have come."""
        if self._port.open:
            return "it has its port open, so it runs, and may be busy with that or with something else"
        if self._port.open is None:
            return f"QEMU has not told so far that something in the guest opened the port {AGENT_PORT}"
        return f"nothing in the guest has the port {AGENT_PORT} open; is qemu-ga installed and running?"

    # Commands of the guest

    @property
    def _waits_on(self) -> Watch:
        return self._watch

    @property
    def via(self) -> str:
        """The way and the user."""
        return "guest agent, as root"

    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        try:
            pid, life = self._start(_START, script, data, deadline)
        except WaitTimeout:
            return Ended(None, b"", b"", f"may not even have begun: {self._silence()}")
        try:
            ended = self._status(pid, life, deadline)
        except WaitTimeout:
            return self._killed(pid, life)
        for stream, output in (("stdout", ended.out), ("stderr", ended.err)):
            # The agent of QEMU 10 says that nothing was cut off when something was.
            if stream in ended.cut or len(output) >= _KEPT:
                raise AgentError(
                    f"VM {self.name!r}: the guest agent keeps {len(output)} bytes of what a command writes, and this "
                    f"one, which ended with status {ended.status}, wrote that or more to {stream}: {shorten(shown)}\n"
                    "Let it write to a file and take that with read_file().",
                    command="guest-exec",
                )
        return Ended(ended.status, ended.out, ended.err)

    def _start(self, starter: str, word: str, data: bytes | None, deadline: Deadline) -> tuple[int, int]:
        """Start a script that has one argument; return its process id, and the agent's life that knows it."""
        arguments: dict[str, object] = {"path": "/bin/sh", "arg": ["-c", starter, word], "capture-output": True}
        if data:
            arguments["input-data"] = base64.b64encode(data).decode()
        pid = self._read(answers.process, "guest-exec", arguments, deadline)
        return pid, self._port.life

    def _status(self, pid: int, life: int, deadline: Deadline) -> answers.End:
        """Wait for a command's end and return what the agent says of it."""
        pause = _FIRST_PAUSE
        while True:
            ended = self._read(answers.end, "guest-exec-status", {"pid": pid}, deadline, life)
            if ended is not None:
                return ended
            self._watch.wait_for(lambda: False, deadline.sooner(pause))
            pause = min(pause * _SLOWER, _LAST_PAUSE)

    def _killed(self, pid: int, life: int) -> Ended:
        deadline = Deadline(_PATIENCE)
        try:
            killer, killer_life = self._start(_KILL, str(pid), None, deadline)
            ended = self._status(pid, life, deadline)
            self._status(killer, killer_life, deadline)  # the agent keeps it until somebody asks
        except WaitTimeout:
            return Ended(None, b"", b"", "could not be killed, or somebody else holds its output")
        return Ended(None, ended.out, ended.err)

    # Files

    def read_file(self, path: str, *, timeout: float | None = DEFAULT_TIMEOUT) -> bytes:
        """Return what is in a file of the guest, of 256 MiB at most."""
        deadline = self._watch.deadline(timeout)
        content = bytearray()
        with self._opened(path, "r", deadline) as (handle, life):
            ended = False
            while not ended:
                part, ended = self._read(
                    answers.part, "guest-file-read", {"handle": handle, "count": _CHUNK}, deadline, life
                )
                content += part
                if len(content) > OUTPUT_LIMIT:
                    raise AgentError(
                        f"VM {self.name!r}: file {path!r} has more than {OUTPUT_LIMIT >> 20} MiB, which is what "
                        "read_file() takes at most",
                        command="guest-file-read",
                    )
        return bytes(content)

    def write_file(
        self, path: str, data: bytes, mode: int | None = None, *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        """Write a file in the guest, in place of what it held.

        ``mode`` are its permissions (None: an existing file keeps its own, a new one gets 0666 from the agent).
        """
        deadline = self._watch.deadline(timeout)
        with self._opened(path, "w", deadline) as (handle, life):
            if mode is not None:  # before anything is in it
                self.run(["chmod", f"{mode:o}", "--", path], timeout=deadline.remaining())
            rest = memoryview(data)
            while rest:
                piece = rest[:_CHUNK]
                arguments = {"handle": handle, "buf-b64": base64.b64encode(piece).decode()}
                taken = partial(answers.count, most=len(piece))
                rest = rest[self._read(taken, "guest-file-write", arguments, deadline, life) :]
            self._ask("guest-file-flush", {"handle": handle}, deadline, life)

    @contextlib.contextmanager
    def _opened(self, path: str, mode: str, deadline: Deadline) -> Iterator[tuple[int, int]]:
        """Open a file inside the block; yield its handle, and the agent's life that knows it."""
        handle = self._read(answers.whole, "guest-file-open", {"path": path, "mode": mode}, deadline)
        life = self._port.life
        try:
            yield handle, life
        except BaseException:
            with contextlib.suppress(MachineError):  # what went wrong before says more
                self._ask("guest-file-close", {"handle": handle}, Deadline(_PATIENCE), life)
            raise
        self._ask("guest-file-close", {"handle": handle}, deadline, life)

    # File systems and clock

    def freeze(self, *, timeout: float | None = DEFAULT_TIMEOUT) -> int:
        """Let all file systems of the guest's disks write what they hold, and nothing more; return how many did.

        Until they are thawed the agent refuses every command that could write.
        """
        return self._read(answers.whole, "guest-fsfreeze-freeze", None, self._watch.deadline(timeout))

    def thaw(self, *, timeout: float | None = DEFAULT_TIMEOUT) -> int:
        """Let file systems write again; return how many did."""
        return self._read(answers.whole, "guest-fsfreeze-thaw", None, self._watch.deadline(timeout))

    @contextlib.contextmanager
    def frozen(self, *, timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[int]:
        """Freeze file systems inside the block, which gets their number; each step may take ``timeout``."""
        try:
            number = self.freeze(timeout=timeout)
        except WaitTimeout:
            with contextlib.suppress(MachineError):
                self.thaw(timeout=_PATIENCE)  # it may have come to it by now
            raise
        try:
            yield number
        finally:
            self.thaw(timeout=timeout)

    def time(self, *, timeout: float | None = DEFAULT_TIMEOUT) -> float:
        """Return the guest's time, in seconds since 1970."""
        return self._read(answers.seconds, "guest-get-time", None, self._watch.deadline(timeout))

    def set_time(self, seconds: float | None = None, *, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Set the guest's time, and its hardware clock, in seconds since 1970 (None: to the host's)."""
        nanoseconds = time.time_ns() if seconds is None else round(seconds * 1e9)
        self._ask("guest-set-time", {"time": nanoseconds}, self._watch.deadline(timeout))
