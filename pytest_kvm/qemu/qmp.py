"""QMP, synchronously: commands with answers, events without polling."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_kvm.errors import QEMUExited, QMPError, WaitTimeout
from pytest_kvm.journal import Journal
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline, Usual, Watch

if TYPE_CHECKING:
    import socket

    from qemu.qmp import QMPClient
    from qemu.qmp.events import EventListener

Event = dict[str, Any]
# Some events a guest can make QEMU send as often as it likes (ACPI_DEVICE_OST, RESET).
EVENT_LIMIT = 20_000
USUAL_TIMEOUT = Usual(30)
_SHOWN = 30


@dataclass
class Expected:
    """What ``expect_event`` yields: ``event`` is set once the block has ended."""

    name: str
    match: Mapping[str, object] = field(default_factory=dict)
    event: Event | None = None


class QMP:
    """A QMP session with one QEMU; usable from any thread. What is said in it goes into the ``journal``."""

    def __init__(
        self,
        *,
        name: str,
        io: IOThread,
        watch: Watch,
        on_event: Callable[[Event], None],
        journal: Journal | None = None,
    ) -> None:
        self._name = name
        self._io = io
        self._watch = watch
        self._on_event = on_event
        self._journal = journal
        # Commands overlap: it tells in the journal which answer is whose.
        self._number = itertools.count(1)
        self._events: list[Event] = []
        # How many there were before the first of these.
        self._forgotten = 0
        self._client: QMPClient | None = None
        self._listener: EventListener | None = None
        self._pump: asyncio.Task[None] | None = None

    def connect(self, connection: socket.socket, deadline: Deadline) -> None:
        """Negotiate over ``connection``; returns when QEMU answers.

        Raises QEMUExited when it ends instead, TimeoutError when the deadline comes first.
        """
        self._io.run(asyncio.wait_for(self._connect(connection), deadline.remaining()))

    async def _connect(self, connection: socket.socket) -> None:
        from qemu.qmp import ConnectError, QMPClient
        from qemu.qmp.events import EventListener

        client = QMPClient(self._name)
        # Before connecting: an event that comes with the greeting is not lost.
        listener = EventListener()
        client.register_listener(listener)
        try:
            await client.connect(connection)
        except (ConnectError, EOFError) as error:
            connection.close()
            raise QEMUExited(f"VM {self._name!r}: no QMP greeting from QEMU: {error}") from error
        self._client, self._listener = client, listener
        self._pump = asyncio.create_task(self._collect(listener))

    async def _collect(self, listener: Any) -> None:
        async for event in listener:
            self._note(event)
            with self._watch:
                self._events.append(dict(event))
                if len(self._events) > EVENT_LIMIT:
                    del self._events[: EVENT_LIMIT // 2]
                    self._forgotten += EVENT_LIMIT // 2
                self._on_event(dict(event))
                self._watch.notify()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command and return what QEMU returns (``{}`` for most that only do something).

        Raises QMPError when QEMU refuses, with its error class and words, and QEMUExited when it is gone.
        """
        known = self._watch.failures if self._connected else 0
        try:
            return self._io.run(self.execute_async(command, arguments))
        except QEMUExited:
            # The connection breaks a moment before the process has ended, which tells more.
            self._watch.wait_only(lambda: self._watch.failures > known, Deadline(1))
            self._watch.check(known)
            raise

    @property
    def _connected(self) -> bool:
        return self._client is not None and self._client.runstate.name == "RUNNING"

    def begin(self, command: str, arguments: Mapping[str, object] | None = None) -> concurrent.futures.Future[Any]:
        """Send a QMP command without waiting for its answer, which the future has."""
        return asyncio.run_coroutine_threadsafe(self.execute_async(command, arguments), self._io.loop)

    async def execute_async(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Do what ``execute`` does, in the I/O thread."""
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError

        if self._client is None:
            raise QEMUExited(f"VM {self._name!r} is not running: cannot execute {command!r}")
        number = next(self._number)
        told = {"arguments": _without_secrets(arguments)} if arguments else {}
        self._note({"id": number, "execute": command, **told})
        try:
            answer = await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            refusal = error.error
            self._note({"id": number, "error": {"class": refusal.error.class_, "desc": refusal.error.desc}})
            raise QMPError(
                f"VM {self._name!r}: QMP command {command!r} failed: {refusal.error.desc} ({refusal.error.class_})",
                command=command,
                error_class=refusal.error.class_,
            ) from None
        except (ExecInterruptedError, StateError):
            if command == "quit":
                return {}
            raise QEMUExited(f"VM {self._name!r}: QEMU ended during QMP command {command!r}") from None
        self._note({"id": number, "return": answer})
        return answer

    def _note(self, message: Mapping[str, object]) -> None:
        if self._journal is not None:
            self._journal.add(message)

    def execute_all(self, *commands: tuple[str, Mapping[str, object]]) -> list[Any]:
        """Run commands one after the other in a single round trip and return their answers; raises as ``execute``."""
        return self._io.run(self._execute_all(commands))

    async def _execute_all(self, commands: Sequence[tuple[str, Mapping[str, object]]]) -> list[Any]:
        # Tasks begin in order, so the commands are sent in order, and QEMU answers in order.
        tasks = [asyncio.create_task(self.execute_async(*command)) for command in commands]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def quit(self, patience: float) -> None:
        """Tell QEMU to quit; gives up waiting for its answer after ``patience`` seconds."""
        self._io.run(asyncio.wait_for(self.execute_async("quit"), patience))

    def hmp(self, line: str) -> str:
        """Run a command of QEMU's human monitor and return the text it prints (errors are text, too)."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    @property
    def events(self) -> list[Event]:
        """All events since QEMU was started, oldest first, as QEMU sent them; of very many the last 10,000 at least."""
        with self._watch:
            return list(self._events)

    @contextlib.contextmanager
    def expect_event(
        self, name: str, match: Mapping[str, object] | None = None, *, timeout: float | None = USUAL_TIMEOUT
    ) -> Iterator[Expected]:
        """Wait, at the end of the block, for an event that came since its beginning.

        ``match`` gives items that the event's data must contain; of a frozenset it must be one. ``timeout`` is in
        seconds (None: no limit), counted from the end of the block. Raises WaitTimeout, naming the events that came
        instead.
        """
        start = self._now()
        expected = Expected(name, match or {})
        yield expected
        expected.event = self._wait(expected, start, timeout)

    def wait_event(
        self, name: str, match: Mapping[str, object] | None = None, *, timeout: float | None = USUAL_TIMEOUT
    ) -> Event:
        """Wait for the next event from now on and return it; otherwise as ``expect_event``."""
        return self._wait(Expected(name, match or {}), self._now(), timeout)

    def _now(self) -> tuple[int, int]:
        """Return how many events there were, and failures: of a guest that had panicked, QEMU can still tell."""
        with self._watch:
            return self._forgotten + len(self._events), self._watch.failures

    def _wait(self, expected: Expected, since: tuple[int, int], timeout: float | None) -> Event:
        timeout = self._watch.limit(timeout)
        found: list[Event] = []
        start, known = since

        def look() -> bool:
            found.extend(event for event in self._since(start) if _matches(event, expected))
            return bool(found)

        if not self._watch.wait_for(look, Deadline(timeout), known=known):
            names = [event["event"] for event in self._since(start)]
            seen = ", ".join(names[-_SHOWN:]) or "none"
            if len(names) > _SHOWN:
                seen = f"{len(names) - _SHOWN} others, {seen}"
            wanted = f"{expected.name} with {dict(expected.match)}" if expected.match else expected.name
            raise WaitTimeout(
                f"VM {self._name!r}: no QMP event {wanted} within {timeout or 0.0:g} s; events instead: {seen}",
                timeout=timeout or 0.0,
            )
        return found[0]

    def _since(self, start: int) -> list[Event]:
        return self._events[max(0, start - self._forgotten) :]

    async def said_all(self, patience: float) -> None:
        """Wait, in the I/O thread, until a QEMU that has ended has told all that it had to tell."""
        client, listener = self._client, self._listener
        if client is None or listener is None:
            return

        async def last() -> None:
            while self._connected:
                await client.runstate_changed()
            while not listener.empty():
                await asyncio.sleep(0)

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(last(), patience)

    def close(self) -> None:
        """End the session; QEMU is not touched."""
        self._io.run(self._close())

    async def _close(self) -> None:
        client, self._client = self._client, None
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        if client is not None:
            # What it raises says only that QEMU left first.
            await asyncio.gather(client.disconnect(), return_exceptions=True)


def _without_secrets(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a command's arguments for the journal: set_password's and a secret object's are not for everybody."""
    secret = {"password", "data"} if str(arguments.get("qom-type", "")).startswith("secret") else {"password"}
    return {key: "(not kept)" if key in secret else value for key, value in arguments.items()}


def _matches(event: Event, expected: Expected) -> bool:
    data = event.get("data", {})
    return event["event"] == expected.name and all(
        key in data and (data[key] in value if isinstance(value, frozenset) else data[key] == value)
        for key, value in expected.match.items()
    )
