"""A guest that says what it likes in the agent's place: each verb ends with what it should return, or a named error."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import AgentError, CommandTimeout, WaitTimeout
from pytest_kvm.guest.agent import agent as agent_module
from pytest_kvm.guest.agent import answers, port
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Watch
from tests.guest.agent.agents import Played, played

LIMIT = 20.0
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
# What is nearly right.
FIELDS = st.sampled_from(
    ["pid", "exited", "exitcode", "signal", "out-data", "err-data", "out-truncated", "count", "eof", "buf-b64"]
)
NEARLY = st.dictionaries(FIELDS, VALUES | st.sampled_from([True, False, 0, -1, "eA==", "eA", "%", "ä"]), max_size=6)
ANSWERS = NEARLY | VALUES
LINES = st.binary(max_size=20) | st.builds(lambda value: json.dumps({"return": value}).encode(), ANSWERS)

VERBS: list[Callable[[Agent], object]] = [
    lambda agent: agent.ping(timeout=LIMIT),
    lambda agent: agent.commands(timeout=LIMIT),
    lambda agent: agent.run("true", check=False, timeout=LIMIT),
    lambda agent: agent.read_file("/tmp/x", timeout=LIMIT),
    lambda agent: agent.write_file("/tmp/x", b"data", timeout=LIMIT),
    lambda agent: agent.freeze(timeout=LIMIT),
    lambda agent: agent.time(timeout=LIMIT),
    lambda agent: agent.execute("guest-get-osinfo", timeout=LIMIT),
]


@pytest.fixture(scope="module")
def io() -> Iterator[IOThread]:
    with closing(IOThread()) as thread:
        yield thread


@pytest.fixture(autouse=True)
def trouble(io: IOThread) -> Iterator[None]:
    """Nothing goes wrong in the I/O thread."""
    found: list[object] = []
    io.call(io.loop.set_exception_handler, lambda _, context: found.append(context))
    yield
    io.call(lambda: None)
    assert found == []


def liar(said: list[bytes]) -> Callable[[Played], None]:
    """Return an agent that is in step and answers the commands with these lines, then with a refusal."""

    def part(guest: Played) -> None:
        left = list(said)
        with contextlib.suppress(ValueError, OSError):  # the other end was closed
            while True:
                request = guest.request()
                if guest.marked:
                    guest.say(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode())
                elif left:
                    guest.say(left.pop(0) or b"{}")  # an empty line is no answer
                else:
                    guest.refuse("enough")

    return part


@settings(max_examples=150)
@given(st.sampled_from(VERBS), st.lists(LINES, min_size=1, max_size=4))
def test_whatever_is_answered(io: IOThread, verb: Callable[[Agent], object], said: list[bytes]) -> None:
    with played(liar(said), io, Watch()) as agent:
        with contextlib.suppress(AgentError):
            verb(agent)
        agent.close()


@given(ANSWERS)
def test_what_answers_are_read_as(value: object) -> None:
    for read in (answers.end, answers.part, answers.process, answers.names, answers.seconds, answers.whole):
        with contextlib.suppress(*answers.UNFIT):
            read(value)


@settings(max_examples=50)
@given(
    st.lists(
        st.binary(max_size=8) | st.sampled_from([b"\n", b"\xff", b'{"return": 0}\n', b'\xff{"return":']), max_size=8
    )
)
def test_what_is_said_while_nobody_asked(io: IOThread, pieces: list[bytes]) -> None:
    def part(guest: Played) -> None:
        guest.socket.sendall(b"".join(pieces))
        guest.sync()
        guest.serve("guest-ping", {})

    with played(part, io, Watch()) as agent:
        agent.ping(timeout=LIMIT)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b'{"return": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it said something else"),
        (b'{"return": ' + b"9" * 10_000 + b"}", "it said something else"),
        (b'{"return": [' + b"[]," * (1 << 19) + b"[]]}", "it said something else"),
        (b'{"error": {"class": {}, "desc": 1}}', "it said something else"),
        (b"x" * (65 << 20), "it said a line of more than 64 MiB"),
    ],
    ids=["deep", "a huge number", "many values", "an error that is none", "an endless line"],
)
def test_an_answer_that_is_none(io: IOThread, answer: bytes, shown: str) -> None:
    with played(liar([answer]), io, Watch()) as agent:
        with pytest.raises(AgentError, match=f"^VM 'vm': no answer to guest agent command 'guest-ping': {shown}"):
            agent.ping(timeout=LIMIT)
        with pytest.raises(AgentError, match="enough"):
            agent.ping(timeout=LIMIT)  # it is in step again
        agent.close()


@pytest.mark.parametrize(
    ("verb", "said", "command", "shown"),
    [
        (VERBS[2], [{"pid": "1"}], "guest-exec", "{'pid': '1'}"),
        (VERBS[2], [{"pid": 1}, {"exited": True}], "guest-exec-status", "{'exited': True}"),
        (VERBS[2], [{"pid": 1}, {"exited": True, "exitcode": 0, "out-data": "%"}], "guest-exec-status", None),
        (VERBS[3], [7, {"buf-b64": "eA=", "eof": True}], "guest-file-read", "{'buf-b64': 'eA=', 'eof': True}"),
        (VERBS[4], [7, {"count": -1}], "guest-file-write", "{'count': -1}"),
        (VERBS[4], [7, {"count": 0}], "guest-file-write", "{'count': 0}"),
        (VERBS[4], [7, {"count": 5}], "guest-file-write", "{'count': 5}"),
        (VERBS[5], ["all"], "guest-fsfreeze-freeze", "all"),
        (VERBS[6], [10**1000], "guest-get-time", None),
        (VERBS[1], [{"supported_commands": [1]}], "guest-info", "{'supported_commands': [1]}"),
    ],
)
def test_an_answer_of_another_shape(
    io: IOThread, verb: Callable[[Agent], object], said: list[object], command: str, shown: str | None
) -> None:
    lines = [json.dumps({"return": value}).encode() for value in said]
    with played(liar(lines), io, Watch()) as agent:
        with pytest.raises(AgentError) as caught:
            verb(agent)
        agent.close()
    assert str(caught.value).startswith(
        f"VM 'vm': guest agent command '{command}' returned something else than it should"
    )
    assert shown is None or str(caught.value).endswith(f": {shown!r}")
    assert caught.value.command == command


def test_a_file_that_never_ends(io: IOThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "OUTPUT_LIMIT", 1 << 20)
    part = {"buf-b64": base64.b64encode(bytes(1 << 19)).decode(), "eof": False}
    lines = [json.dumps({"return": value}).encode() for value in (7, *[part] * 10)]
    with played(liar(lines), io, Watch()) as agent:
        with pytest.raises(AgentError) as caught:
            agent.read_file("/dev/zero", timeout=LIMIT)
        agent.close()
    assert str(caught.value) == "VM 'vm': file '/dev/zero' has more than 1 MiB, which is what read_file() takes at most"


@pytest.fixture
def flood(io: IOThread) -> Iterator[Agent]:
    """An agent that never stops talking."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs.sendall(b"x" * (1 << 20))

    agent = Agent(name="vm", connection=ours, io=io, watch=Watch())
    thread = threading.Thread(target=talk)
    thread.start()
    yield agent
    agent.close()
    theirs.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT)
    theirs.close()


def test_a_flood_does_not_keep_others_waiting(io: IOThread, flood: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_MOST_AT_ONCE", 8 << 20)
    with pytest.raises(WaitTimeout, match="did not answer 'guest-ping' within"):
        flood.ping(timeout=0.2)
    for is_open in (True, False, True):
        io.call(flood.heed, {"event": "VSERPORT_CHANGE", "data": {"id": "port-agent", "open": is_open}})
    with pytest.raises(CommandTimeout):
        flood.run("true", timeout=0.2)


class Endless(socket.socket):
    """A connection that never runs dry."""

    left = 10_000

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return as much as is asked for."""
        self.left -= 1
        assert self.left > 0, "whoever reads that has no end"
        return b"x" * size


def test_what_never_runs_dry_is_not_read_to_its_end(io: IOThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_MOST_AT_ONCE", 8 << 20)
    ours, theirs = socket.socketpair()
    with theirs, Endless(fileno=ours.detach()) as connection:  # of which nobody says that there is something to read
        talker = io.call(port.AgentPort, connection, "vm")
        io.call(talker.changed, False)
        io.call(talker.end)
        assert connection.left > 10_000 - 100
