"""A guest that says what it likes on the ports of its shell: each command ends, and nothing breaks on our side."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import CommandTimeout, MachineError, ShellLost, TooMuchOutput
from pytest_kvm.guest.shell import control, shell, stream
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline
from tests.guest.shell.guests import LIMIT, Guest, guest, taken

# What the protocol is made of, and what looks like it.
WORDS = st.sampled_from(
    [
        *(
            b"ready",
            b"busy",
            b"1",
            b"0",
            b"2",
            b"-1",
            b"256",
            b"9" * 400,
            "²".encode(),
            "٣".encode(),
            b"\0",
            b"\xff\xfe",
        ),
        *(b" ", b" ", b"\n", b"\n", b"\r", b"\t", b"\x1b[2J", b"x" * 300, b"ready new\n", b"1 0\n", b"1 busy\n"),
    ]
)
GARBAGE = st.lists(st.one_of(WORDS, WORDS, st.binary(max_size=4)), max_size=12).map(b"".join)
PORTS = st.sampled_from(["control", "0.ctl", "0.ctl", "0.out", "0.err", "resume"])
SAID = st.lists(st.tuples(PORTS, GARBAGE), max_size=6)
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def io() -> Iterator[IOThread]:
    with closing(IOThread()) as thread:
        yield thread


@pytest.fixture
def played(tmp_path: Path, io: IOThread) -> Iterator[Guest]:
    with guest(tmp_path, io) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_KILL_PATIENCE", 0.02)
    monkeypatch.setattr(control.Control.ask, "__kwdefaults__", {"patience": 0.02})
    monkeypatch.setattr(shell, "MAX_LANES", 1)  # there is no QEMU to plug another one in


def playing(part: Callable[..., object], *arguments: object) -> Future[object]:
    """Play the guest's part in a thread."""
    outcome: Future[object] = Future()

    def play() -> None:
        try:
            outcome.set_result(part(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised by result()
            outcome.set_exception(error)

    threading.Thread(target=play, daemon=True).start()
    return outcome


def usable(played: Guest) -> None:
    """A guest that has come to its senses serves commands as ever."""
    played.ready("sane")
    taken(played.ports["0.ctl"])
    answered = playing(played.answer, b"out", b"err", b"7")
    result = played.shell.run("script", check=7, timeout=LIMIT)
    assert (result.stdout, result.stderr, answered.result(LIMIT)) == ("out", "err", b"script")


@FEW
@given(SAID)
def test_what_is_said_while_nobody_asked(tmp_path: Path, io: IOThread, said: list[tuple[str, bytes]]) -> None:
    with guest(tmp_path, io) as played:
        for port, data in said:
            played.say(port, data)
        for port in played.ports.keys() - {"resume"}:  # there nobody reads
            taken(played.ports[port])
        usable(played)


@FEW
@given(SAID, st.booleans())
def test_what_is_said_under_a_command(tmp_path: Path, io: IOThread, said: list[tuple[str, bytes]], ends: bool) -> None:
    def part(played: Guest) -> None:
        number, _, end = played.request()
        for port, data in said:
            played.say(port, data)
        if ends:
            for port in ("0.out", "0.err"):
                played.say(port, end + b"\n")
            played.say("0.ctl", b"\n" + number + b" 0\n")

    with guest(tmp_path, io) as played:
        played.ready()
        outcome = playing(part, played)
        try:
            result = played.shell.run("script", check=False, timeout=0.1)
            assert 0 <= result.returncode < 1000
        except (CommandTimeout, ShellLost):
            pass
        outcome.exception(LIMIT)
        # The command that was given up keeps its lane; the machine is reset.
        io.call(played.shell.lose, "the machine was reset")
        for port in played.ports.keys() - {"resume"}:
            taken(played.ports[port])
        while True:
            try:
                usable(played)
            except ShellLost:
                continue
            break


@pytest.mark.parametrize("status", [b"", b"x", "²".encode(), b"9" * 5000, b"-1", b"1000", b"0x1", b"1 1", b"\xff"])
def test_a_status_that_is_none(played: Guest, status: bytes) -> None:
    played.ready()
    answered = playing(played.answer, b"", b"", status)
    with pytest.raises(CommandTimeout):
        played.shell.run("script", timeout=0.1)
    answered.result(LIMIT)


@pytest.mark.parametrize("port", ["0.ctl", "control"])
def test_an_endless_line(played: Guest, port: str) -> None:
    for _ in range(64):
        played.say(port, b"x" * (1 << 20))
    played.say(port, b"\n")
    usable(played)


def test_a_lane_that_is_always_busy_is_not_asked_for_ever(played: Guest) -> None:
    played.ready()
    asked = []
    over = threading.Event()

    def part() -> None:
        while not over.is_set():
            number, *_ = played.request()
            asked.append(number)
            played.say("0.ctl", number + b" busy\n")

    answered = playing(part)
    with pytest.raises(CommandTimeout):
        played.shell.run("script", timeout=0.1)
    assert asked
    count = len(asked)
    time.sleep(0.1)
    assert len(asked) <= count + 1
    over.set()
    played.deafen("0.ctl")
    answered.exception(LIMIT)


def test_a_script_that_the_guest_does_not_take(played: Guest, io: IOThread) -> None:
    played.ready()
    with pytest.raises(CommandTimeout, match="could not be killed"):
        played.shell.run(f": {'x' * 10_000_000}", timeout=0.1)
    # Half of it is on its way: what came after it would be taken for the rest.
    with pytest.raises(MachineError, match="1 commands run already"):
        played.shell.run("next", timeout=LIMIT)
    reader = playing(lambda: [None for _ in iter(lambda: played.hear("0.ctl", 1 << 20), b"")])
    io.call(played.shell.lose, "the machine was reset")
    played.deafen("0.ctl")
    reader.exception(LIMIT)


# Floods


def test_a_command_that_floods_us_is_killed(played: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 1 << 20)
    played.ready()

    def part() -> None:
        number, _, end = played.request()
        for _ in range(64):
            played.say("0.err", b"y\n" * (1 << 19))
        played.say("0.err", end + b"\n")
        played.say("0.out", end + b"\n")
        played.say("0.ctl", number + b" 137\n")

    monkeypatch.setattr(shell, "_KILL_PATIENCE", LIMIT)
    answered = playing(part)
    with pytest.raises(TooMuchOutput) as caught:
        played.shell.run("yes >&2", timeout=LIMIT)
    assert str(caught.value) == (
        "VM 'vm': command wrote more than 256 MiB to stderr and was killed (shell, as root): 'yes >&2'\n"
        "Let it write to a file, and copy that with vm.ssh.get(), or read from vm.popen() while it writes."
    )
    assert (caught.value.command, caught.value.limit) == ("yes >&2", 256 << 20)
    answered.result(LIMIT)
    answered = playing(played.answer, b"usable")
    assert played.shell.run("next", timeout=LIMIT).stdout == "usable"
    answered.result(LIMIT)


def test_a_command_in_the_background_waits_for_its_reader(played: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 1 << 20)
    played.ready()
    size = 32 << 20

    def part() -> None:
        number, _, end = played.request()
        played.say("0.out", b"x" * size + end + b"\n")
        played.say("0.err", end + b"\n")
        played.say("0.ctl", number + b" 0\n")

    answered = playing(part)
    process = played.shell.popen("much", text=False)
    assert process.job.watch.wait_only(lambda: bool(process.job.full), Deadline(LIMIT))
    with pytest.raises(
        CommandTimeout, match="; it waits for its stdout to be read, of which there are 256 MiB: 'much'"
    ):
        process.wait(0.01)
    with pytest.raises(TooMuchOutput, match="to stdout, and waits for it to be read: 'much'"):
        process.communicate()
    assert len(process.job.out.everything()) < 4 << 20
    assert not answered.done()
    assert len(process.stdout.read()) > size - (4 << 20)
    assert process.wait(LIMIT) == 0
    answered.result(LIMIT)


def test_one_that_is_killed_waits_for_nobody(played: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 1 << 20)
    played.ready()

    def part() -> None:
        number, _, end = played.request()
        played.say("0.out", b"x" * (32 << 20) + end + b"\n")
        played.say("0.err", end + b"\n")
        played.say("0.ctl", number + b" 137\n")

    answered = playing(part)
    process = played.shell.popen("much", text=False)
    assert process.job.watch.wait_only(lambda: bool(process.job.full), Deadline(LIMIT))
    with pytest.raises(ShellLost):
        process.kill()  # there is nobody on the control port
    assert process.wait(LIMIT) == 137
    assert process.stdout.read() == b"x" * (1 << 20)
    answered.result(LIMIT)


def test_a_guest_that_is_lost_while_its_command_waits(
    played: Guest, io: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "OUTPUT_LIMIT", 1 << 20)
    played.ready()

    def part() -> None:
        played.request()
        played.say("0.out", b"x" * (8 << 20))

    answered = playing(part)
    process = played.shell.popen("much", text=False)
    assert process.job.watch.wait_only(lambda: bool(process.job.full), Deadline(LIMIT))
    io.call(played.shell.lose, "the machine was reset")
    with pytest.raises(ShellLost, match="the machine was reset"):
        process.wait(LIMIT)
    answered.result(LIMIT)
    usable(played)


# The port on which clones are set right


@pytest.mark.parametrize("junk", [b"", b"x", b"junk" * 1001])
def test_junk_before_the_answer(played: Guest, junk: bytes) -> None:
    def part() -> None:
        played.say("resume", junk)
        for _ in range(10):
            data = b""
            while len(data) < 88:
                data += played.hear("resume", 88 - len(data))
            played.say("resume", data[:8])

    answered = playing(part)
    played.shell.resume((), Deadline(LIMIT))
    played.deafen("resume")
    answered.exception(LIMIT)


def test_a_flood_in_place_of_the_answer(played: Guest, io: IOThread) -> None:
    port = played.ports["resume"]

    def part() -> None:
        while True:
            port.sendall(b"\0" * 65536)

    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(part)
        with pytest.raises(OSError, match=r"the guest said \d+ bytes of something else"):
            played.shell.resume((), Deadline(LIMIT))
        io.call(lambda: None)  # others have their turn
        port.shutdown(socket.SHUT_RDWR)
        assert isinstance(flood.exception(LIMIT), OSError)
