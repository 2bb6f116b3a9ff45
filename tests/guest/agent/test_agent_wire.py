"""Getting into step with a guest agent and staying there, with a test in the agent's place."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing

import pytest

from pytest_kvm import AgentError, CommandTimeout, QEMUExited, WaitTimeout
from pytest_kvm.guest.agent import agent as agent_module
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.agent.agents import Part, Played, played

Play = Callable[[Part], AbstractContextManager[Agent]]


@pytest.fixture(scope="module")
def io() -> Iterator[IOThread]:
    with closing(IOThread()) as thread:
        yield thread


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def play(io: IOThread, watch: Watch) -> Play:
    return lambda part: played(part, io, watch)


def tell(io: IOThread, agent: Agent, name: str, **data: object) -> None:
    """Let QEMU tell something."""
    io.call(agent.heed, {"event": name, "data": data})


def port(io: IOThread, agent: Agent, is_open: bool) -> None:
    tell(io, agent, "VSERPORT_CHANGE", id="port-agent", open=is_open)


# Getting into step


def test_what_comes_before_the_first_answer_is_dropped(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.answer("stale")
        guest.say(b'\xff{"return": 0}')
        guest.socket.sendall(b'{"return": {"cut off')
        guest.sync()
        guest.serve("guest-get-host-name", {"host-name": "guest"})
        guest.serve("guest-ping", {})

    with play(part) as agent:
        assert agent.execute("guest-get-host-name") == {"host-name": "guest"}
        agent.ping()


def test_pieces(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        for byte in b'{"return": "long"}\n{"return":':
            guest.socket.sendall(bytes([byte]))
            time.sleep(0.001)
        guest.request()
        guest.say(b' "short"}')

    with play(part) as agent:
        assert [agent.execute("guest-x"), agent.execute("guest-y")] == ["long", "short"]


def test_an_answer_that_comes_too_late_is_not_the_next_one(play: Play) -> None:
    late = threading.Event()

    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-ping", {})
        guest.request()
        late.wait(20)
        guest.answer("late")
        guest.sync()
        guest.serve("guest-get-time", 1_500_000_000)

    with play(part) as agent:
        agent.ping()
        with pytest.raises(WaitTimeout) as failure:
            agent.ping(timeout=0.2)
        late.set()
        assert agent.time() == 1.5
    assert str(failure.value) == (
        "VM 'vm': the guest agent did not answer 'guest-ping' within 0.2 s: "
        "QEMU has not told so far that something in the guest opened the port org.qemu.guest_agent.0"
    )
    assert failure.value.timeout == 0.2


def test_nor_the_answers_to_what_got_nobody_into_step(play: Play) -> None:
    answer = threading.Event()

    def part(guest: Played) -> None:
        answer.wait(20)
        for _ in range(3):
            guest.sync()
        guest.serve("guest-ping", {})

    with play(part) as agent:
        for _ in range(2):
            with pytest.raises(WaitTimeout):
                agent.ping(timeout=0.05)
        answer.set()
        agent.ping()


@pytest.mark.parametrize("garbage", [b"rubbish", b'{"return": {"hal', b"[]", b"{}", b'{"error": "no"}', b"\x80"])
def test_an_answer_that_is_none(play: Play, garbage: bytes) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        guest.say(b"")
        guest.say(garbage)
        guest.sync()
        guest.serve("guest-ping", {})

    with play(part) as agent:
        with pytest.raises(AgentError) as failure:
            agent.execute("guest-get-osinfo")
        assert str(failure.value) == (
            "VM 'vm': no answer to guest agent command 'guest-get-osinfo': it said something else: "
            f"{garbage.decode(errors='backslashreplace')!r}"
        )
        assert (failure.value.command, failure.value.error_class) == ("guest-get-osinfo", "")
        agent.ping()


def test_a_refusal(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        assert guest.request() == {"execute": "guest-x", "arguments": {"a": 1}}
        guest.refuse("no such thing", "CommandNotFound")
        guest.serve("guest-ping", {})  # it is in step

    with play(part) as agent:
        with pytest.raises(AgentError) as failure:
            agent.execute("guest-x", {"a": 1})
        assert str(failure.value) == ("VM 'vm': guest agent command 'guest-x' failed: no such thing (CommandNotFound)")
        assert (failure.value.command, failure.value.error_class) == ("guest-x", "CommandNotFound")
        agent.ping()


# What QEMU tells


def test_silence_is_explained(play: Play, io: IOThread) -> None:
    with play(lambda _: None) as agent:
        port(io, agent, True)
        with pytest.raises(WaitTimeout, match="it has its port open, so it runs, and may be busy"):
            agent.ping(timeout=0.01)
        port(io, agent, False)
        with pytest.raises(WaitTimeout) as failure:
            agent.ping(timeout=0.01)
        assert str(failure.value) == (
            "VM 'vm': the guest agent did not answer 'guest-ping' within 0.01 s: "
            "nothing in the guest has the port org.qemu.guest_agent.0 open; is qemu-ga installed and running?"
        )
        assert agent.wait(Deadline(0.01)) is False


def test_an_agent_that_goes_away(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        port(io, agent, False)
        guest.sync()
        guest.serve("guest-ping", {})

    with play(part) as agent:
        port(io, agent, True)
        with pytest.raises(AgentError, match=r"no answer to .* 'guest-x': the agent closed its port"):
            agent.execute("guest-x", timeout=None)
        agent.ping()


def test_its_last_words_count(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        # The I/O thread hears of both at once.
        io.call(both, guest)

    def both(guest: Played) -> None:
        guest.answer("done")
        agent.heed({"event": "VSERPORT_CHANGE", "data": {"id": "port-agent", "open": False}})

    with play(part) as agent:
        assert agent.execute("guest-x") == "done"


def test_a_restart_of_which_only_the_end_is_told(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        port(io, agent, True)

    with play(part) as agent:
        port(io, agent, True)
        with pytest.raises(AgentError, match="the agent was started again"):
            agent.execute("guest-x", timeout=None)


def test_other_ports_are_none_of_its_business(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        tell(io, agent, "VSERPORT_CHANGE", id="port-shell-control", open=False)
        guest.answer("well")

    with play(part) as agent:
        assert agent.execute("guest-x") == "well"


def test_a_reset(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        tell(io, agent, "RESET", guest=False)
        guest.answer("from before")
        guest.request()  # to get into step: the next reset comes in between
        tell(io, agent, "RESET", guest=False)
        port(io, agent, True)
        guest.sync()
        guest.serve("guest-ping", {})

    with play(part) as agent:
        with pytest.raises(AgentError, match="'guest-x': the machine was reset"):
            agent.execute("guest-x", timeout=None)
        assert agent.wait(Deadline(20))


def test_waiting_outlives_a_restart(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        port(io, agent, False)
        guest.sync()
        guest.serve("guest-ping", {})

    with play(part) as agent:
        assert agent.wait(Deadline(20))


def test_the_end_of_the_machine_ends_every_wait(play: Play, io: IOThread, watch: Watch) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        watch.fail(lambda: QEMUExited("it crashed"))

    with play(part) as agent:
        with pytest.raises(QEMUExited, match="it crashed"):
            agent.execute("guest-x", timeout=None)
        with pytest.raises(QEMUExited, match="it crashed"):
            agent.ping()


def test_the_end_tells_more_than_the_broken_connection(play: Play, watch: Watch) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.request()
        guest.hang_up()
        time.sleep(0.05)
        watch.fail(lambda: QEMUExited("it crashed"))

    with play(part) as agent, pytest.raises(QEMUExited, match="it crashed"):
        agent.execute("guest-x", timeout=None)


# Commands that have no answer


def test_a_command_that_only_answers_when_it_fails(play: Play, io: IOThread, watch: Watch) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        assert guest.request()["execute"] == "guest-shutdown"
        guest.serve("guest-ping", {})  # nothing was wrong with it
        guest.request()
        guest.refuse("not now")
        guest.serve("guest-ping", {})
        guest.sync()
        guest.request()
        tell(io, agent, "SUSPEND")
        guest.request()
        guest.answer({})  # when it has woken up
        guest.sync()
        guest.request()
        watch.fail(lambda: QEMUExited("powered off", returncode=0))

    with play(part) as agent:
        assert agent.execute("guest-shutdown", {"mode": "halt"}) == {}
        with pytest.raises(AgentError, match="'guest-shutdown' failed: not now"):
            agent.execute("guest-shutdown")
        assert agent.execute("guest-suspend-ram") == {}
        assert agent.execute("guest-shutdown") == {}


# What has parts


def test_a_command_of_an_agent_that_is_gone(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-exec", {"pid": 7})
        guest.request()
        port(io, agent, False)
        guest.answer({"exited": False})

    with play(part) as agent, pytest.raises(AgentError, match="'guest-exec-status': the agent closed"):
        agent.run("sleep 1000")


def test_its_successor_is_not_asked(play: Play, io: IOThread) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-exec", {"pid": 7})
        guest.request()
        io.call(all_at_once, guest)

    def all_at_once(guest: Played) -> None:
        guest.answer({"exited": False})
        for is_open in (False, True):
            agent.heed({"event": "VSERPORT_CHANGE", "data": {"id": "port-agent", "open": is_open}})

    with play(part) as agent, pytest.raises(AgentError, match="'guest-exec-status': the agent closed its port"):
        agent.run("sleep 1000")


def test_output_that_was_cut_off(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-exec", {"pid": 7})
        err = base64.b64encode(b"1234").decode()
        status = {"exited": True, "exitcode": 3, "err-data": err, "err-truncated": True, "out-truncated": False}
        guest.serve("guest-exec-status", status)

    with play(part) as agent, pytest.raises(AgentError) as failure:
        agent.run("yes")
    assert str(failure.value) == (
        "VM 'vm': the guest agent keeps 4 bytes of what a command writes, and this one, which ended with status 3, "
        "wrote that or more to stderr: 'yes'\nLet it write to a file and take that with read_file()."
    )


def test_a_command_that_nobody_takes(play: Play) -> None:
    with play(lambda _: None) as agent, pytest.raises(CommandTimeout) as failure:
        agent.run("true", timeout=0.01)
    assert str(failure.value) == (
        "VM 'vm': command did not end within 0.01 s and may not even have begun: QEMU has not told so far that "
        "something in the guest opened the port org.qemu.guest_agent.0 (guest agent, as root): 'true'\n"
        "0 bytes of stdout and 0 of stderr came until then; they are the error's .stdout and .stderr"
    )


def test_a_command_that_cannot_be_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "_PATIENCE", 0.3)

    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-ping", {})
        guest.serve("guest-exec", {"pid": 7})
        killed = False
        with contextlib.suppress(ValueError, BrokenPipeError):  # it is closed, wherever we are then
            while True:
                request = guest.request()
                if guest.marked:  # the timeout may have come between a question and its answer
                    guest.say(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode())
                elif request["execute"] == "guest-exec":
                    killed = request["arguments"]["arg"][-1] == "7"
                    guest.answer({"pid": 8})
                else:
                    guest.answer({"exited": False})
        assert killed

    with play(part) as agent:
        agent.ping()
        with pytest.raises(CommandTimeout) as failure:
            agent.run("true", timeout=0.2)
        agent.close()
    assert "within 0.2 s and could not be killed, or somebody else holds its output" in str(failure.value)


def test_what_is_written_in_part_is_written_on(play: Play) -> None:
    written = bytearray()

    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-file-open", 1000)
        while len(written) < 10:
            request = guest.request()
            assert request["execute"] == "guest-file-write"
            taken = base64.b64decode(request["arguments"]["buf-b64"])[:4]
            written.extend(taken)
            guest.answer({"count": len(taken), "eof": False})
        guest.serve("guest-file-flush", {})
        assert guest.serve("guest-file-close", {}) == {"handle": 1000}

    with play(part) as agent:
        agent.write_file("/tmp/x", b"0123456789")
    assert written == b"0123456789"


def test_a_file_is_closed_when_reading_fails(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-file-open", 1000)
        guest.request()
        guest.refuse("failed to read file")
        assert guest.serve("guest-file-close", {}) == {"handle": 1000}

    with play(part) as agent, pytest.raises(AgentError, match="'guest-file-read' failed: failed to read file"):
        agent.read_file("/tmp/x")


def test_file_systems_are_thawed_whatever_happens(play: Play) -> None:
    def part(guest: Played) -> None:
        guest.sync()
        guest.serve("guest-fsfreeze-freeze", 2)
        guest.serve("guest-fsfreeze-thaw", 2)
        guest.request()  # it takes too long
        guest.sync()
        guest.serve("guest-fsfreeze-thaw", 2)
        guest.request()
        guest.refuse("disabled", "CommandNotFound")

    with play(part) as agent:
        with pytest.raises(ZeroDivisionError), agent.frozen() as number:
            assert 1 / (number - 2)
        with pytest.raises(WaitTimeout), agent.frozen(timeout=0.2):
            pass
        with pytest.raises(AgentError, match="disabled"), agent.frozen():
            pass


def test_setting_the_time(play: Play) -> None:
    times: list[int] = []

    def part(guest: Played) -> None:
        guest.sync()
        for _ in range(2):
            times.append(guest.serve("guest-set-time", {})["time"])

    with play(part) as agent:
        agent.set_time(1234.5)
        agent.set_time()
    assert times[0] == 1_234_500_000_000
    assert abs(times[1] / 1e9 - time.time()) < 10
