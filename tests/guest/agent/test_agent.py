"""QEMU's guest agent itself, as a process of this host instead of a guest."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from pytest_kvm import AgentError, CommandError, CommandTimeout, WaitTimeout
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Deadline
from tests.guest.agent.agents import FORBIDDEN, Host


@pytest.fixture(scope="module")
def io() -> Iterator[IOThread]:
    with closing(IOThread()) as thread:
        yield thread


@pytest.fixture(scope="module")
def host(io: IOThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all tests that leave it as it was."""
    host = Host(tmp_path_factory.mktemp("ga"), io)
    yield host
    host.agent.close()
    host.end()


@pytest.fixture
def agent(host: Host) -> Agent:
    return host.agent


def running(group: str) -> list[str]:
    """Return the processes of a group that run; one that has ended and waits for its parent does not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # proc(5): state, parent and group come after the name, which may contain anything.
            name, _, rest = path.read_text().rpartition(")")
            state, _, owner = rest.split()[:3]
            if owner == group and state != "Z":
                found.append(name)
    return found


# Its own commands


def test_it_answers(agent: Agent) -> None:
    agent.ping()
    assert agent.wait(Deadline(20))
    assert agent.execute("guest-get-osinfo")["kernel-release"] == platform.release()
    assert agent.execute("guest-sync", {"id": 5}) == 5
    assert abs(agent.time() - time.time()) < 5
    assert agent.via == "guest agent, as root"


def test_what_it_may_run(agent: Agent) -> None:
    commands = agent.commands()
    assert commands >= {"guest-ping", "guest-exec", "guest-file-open"}
    assert not commands & set(FORBIDDEN)


@pytest.mark.parametrize(
    ("command", "class_", "words"),
    [
        ("guest-nope", "CommandNotFound", "guest-nope has not been found"),
        ("guest-set-time", "CommandNotFound", "guest-set-time has been disabled"),
        ("guest-sync", "GenericError", "Parameter 'id' is missing"),
    ],
)
def test_a_refusal(agent: Agent, command: str, class_: str, words: str) -> None:
    with pytest.raises(AgentError, match=words) as failure:
        agent.execute(command)
    assert str(failure.value).startswith(f"VM 'host': guest agent command {command!r} failed: ")
    assert (failure.value.command, failure.value.error_class) == (command, class_)
    agent.ping()


def test_half_a_request_is_forgotten(io: IOThread, agent: Agent) -> None:
    agent.ping()
    # What is left of one whose sender gave up.
    io.call(agent._port._connection.send, b'{"execute": "guest-exec", "arguments": {"path": "/bin/')
    io.call(agent._port.lose, "the test says so")
    agent.ping()


# Commands of the guest


def test_status_and_streams(agent: Agent) -> None:
    result = agent.run("echo out; echo err >&2; exit 12", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (12, "out\n", "err\n")
    assert agent.run(["printf", "%s|", "a b", "$HOME", "'"]).stdout == "a b|$HOME|'|"
    assert agent.run("echo $A; pwd", env={"A": "it's $HOME"}, cwd="/tmp").stdout == "it's $HOME\n/tmp\n"
    assert agent.run("").stdout == ""


def test_check(agent: Agent) -> None:
    with pytest.raises(CommandError) as failure:
        agent.run("echo some; echo trouble >&2; exit 3")
    assert str(failure.value) == (
        "VM 'host': command returned status 3 (guest agent, as root): 'echo some; echo trouble >&2; exit 3'\n"
        "stdout: some\nstderr: trouble"
    )


def test_a_signal_is_a_status(agent: Agent) -> None:
    assert agent.run("kill -TERM $$", check=128 + signal.SIGTERM).stderr == ""
    assert agent.run("kill -KILL $$", check=128 + signal.SIGKILL).stderr == ""


def test_stdin(agent: Agent) -> None:
    assert agent.run("cat", input="with ümlaut\n").stdout == "with ümlaut\n"
    assert agent.run("cat").stdout == ""
    assert agent.run("cat", input=b"").stdout == ""
    assert agent.run("head -c 1", input="x" * 1_000_000).stdout == "x"
    data = bytes(range(256)) * 8192
    assert agent.run("cat; echo end >&2", input=data, text=False).stdout == data


def test_output_beyond_what_it_keeps(agent: Agent) -> None:
    with pytest.raises(
        AgentError, match=r"keeps 16777216 bytes .* with status 3, wrote that or more to stdout"
    ) as failure:
        agent.run("head -c 16777217 /dev/zero; exit 3", check=False)
    assert failure.value.command == "guest-exec"


def test_a_script_that_is_too_long(agent: Agent) -> None:
    with pytest.raises(AgentError, match="Argument list too long"):
        agent.run(f": {'x' * 200_000}")


def test_a_timeout_kills_all_of_it(agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(CommandTimeout) as expiry:
        agent.run(f"echo partial; echo $$ >{tmp_path}/pid; sleep 1234 | sleep 1234", timeout=0.3)
    assert str(expiry.value).startswith("VM 'host': command did not end within 0.3 s and was killed (guest agent, ")
    assert expiry.value.stdout == "partial\n"
    group = (tmp_path / "pid").read_text().strip()
    end = time.monotonic() + 5
    while running(group) and time.monotonic() < end:  # who has let go of everything is not quite gone yet
        time.sleep(0.01)
    assert running(group) == []
    agent.ping()  # which was not in that group


def test_what_stays_in_the_background(agent: Agent, tmp_path: Path) -> None:
    agent.run(f"sleep 1234 >/dev/null 2>&1 & echo $! >{tmp_path}/pid")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_from_many_threads(agent: Agent) -> None:
    answers: dict[int, str] = {}

    def work(number: int) -> None:
        answers[number] = agent.run(f"sleep 0.0{number}; echo {number}").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(8)}


# Files


def test_files(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a 'file'"
    data = os.urandom(3_000_000)
    host.agent.write_file(str(path), data)
    assert path.read_bytes() == data
    assert host.agent.read_file(str(path)) == data
    host.agent.write_file(str(path), b"", 0o751)
    assert host.agent.read_file(str(path)) == b""
    assert path.stat().st_mode & 0o7777 == 0o751
    assert host.agent.read_file("/proc/sys/kernel/ostype") == b"Linux\n"
    assert str(path) not in host.files()


def test_permissions_are_there_before_the_content(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(CommandError, match="chmod"):
        host.agent.write_file(str(path), b"secret", 0o77777)
    assert path.read_bytes() == b""
    assert str(path) not in host.files()


def test_files_that_cannot_be_had(host: Host, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"'guest-file-open' failed: .*No such file or directory"):
        host.agent.read_file(str(tmp_path / "nope"))
    with pytest.raises(AgentError, match=r"'guest-file-open' failed: .*Is a directory"):
        host.agent.write_file(str(tmp_path), b"")
    with pytest.raises(AgentError, match=r"'guest-file-\w+' failed: "):
        host.agent.read_file(str(tmp_path))
    assert str(tmp_path) not in host.files()


def test_a_file_that_takes_too_long_is_closed(host: Host) -> None:
    with pytest.raises(WaitTimeout, match=r"'guest-file-read' within 0\.2 s"):
        host.agent.read_file("/dev/zero", timeout=0.2)
    assert "/dev/zero" not in host.files()


# An agent that does not do as it should


def test_one_that_hangs(host: Host) -> None:
    agent = host.agent
    agent.ping()
    host.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(WaitTimeout):
            agent.execute("guest-get-time", timeout=0.1)
        with pytest.raises(CommandTimeout, match="may not even have begun"):
            agent.run("true", timeout=0.1)
    finally:
        host.process.send_signal(signal.SIGCONT)
    assert agent.execute("guest-get-host-name") == {"host-name": platform.node()}


def test_one_that_dies(io: IOThread, tmp_path: Path) -> None:
    host = Host(tmp_path, io)
    try:
        host.agent.ping()
        killer = threading.Timer(0.2, host.process.kill)
        killer.start()
        with pytest.raises(AgentError, match="no answer to guest agent command 'guest-exec"):
            host.agent.run("sleep 2", timeout=None)
        killer.join()
    finally:
        host.agent.close()
        host.end()
