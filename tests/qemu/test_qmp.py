"""QMP with a real QEMU that has nothing in it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_kvm.errors import QEMUExited, QMPError, WaitTimeout
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.process import QEMUProcess
from pytest_kvm.qemu.qmp import QMP, Event
from pytest_kvm.qemu.sockets import Listener
from pytest_kvm.waiting import Deadline, Watch


class Session(NamedTuple):
    qmp: QMP
    process: QEMUProcess
    watch: Watch
    heard: list[Event]


@pytest.fixture
def session(io: IOThread, tmp_path: Path) -> Iterator[Session]:
    watch = Watch()
    heard: list[Event] = []

    def gone(process: QEMUProcess) -> None:
        watch.fail(lambda: QEMUExited(f"it ended with {process.returncode}", returncode=process.returncode))

    with ExitStack() as stack:
        with closing(Listener(tmp_path / "qmp")) as listener:
            connection = listener.connect()
            chardev = f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off"
            process = QEMUProcess(
                [
                    str(find_qemu().path),
                    "-machine",
                    "none",
                    "-nodefaults",
                    "-display",
                    "none",
                    "-chardev",
                    chardev,
                    "-mon",
                    "chardev=qmp,mode=control",
                ],
                io=io,
                watch=watch,
                stderr_path=tmp_path / "log",
                pass_fds=[listener.fileno()],
                cwd=tmp_path,
                on_exit=gone,
            )
            stack.callback(process.end, 10)
        qmp = QMP(name="it", io=io, watch=watch, on_event=heard.append)
        stack.callback(qmp.close)
        qmp.connect(connection, Deadline(30))
        yield Session(qmp, process, watch, heard)


def test_commands_return_what_qemu_returns(session: Session) -> None:
    assert session.qmp.execute("query-status")["status"] == "running"
    assert session.qmp.execute("stop") == {}
    assert session.qmp.execute("query-status")["status"] == "paused"


def test_arguments(session: Session) -> None:
    session.qmp.execute("object-add", {"qom-type": "iothread", "id": "t"})
    (listed,) = session.qmp.execute("query-iothreads")
    assert listed["id"] == "t"


def test_a_refusal_says_which_command_and_why(session: Session) -> None:
    with pytest.raises(QMPError) as caught:
        session.qmp.execute("device_del", {"id": "nothing"})
    assert str(caught.value) == (
        "VM 'it': QMP command 'device_del' failed: Device 'nothing' not found (DeviceNotFound)"
    )
    assert (caught.value.command, caught.value.error_class) == ("device_del", "DeviceNotFound")


def test_an_unknown_command(session: Session) -> None:
    with pytest.raises(QMPError) as caught:
        session.qmp.execute("make-coffee")
    assert caught.value.error_class == "CommandNotFound"


def test_the_human_monitor_answers_in_text(session: Session) -> None:
    assert "VM status: running" in session.qmp.hmp("info status")
    assert "unknown command" in session.qmp.hmp("make coffee")


def test_expected_events(session: Session) -> None:
    with session.qmp.expect_event("STOP", timeout=10) as expected:
        session.qmp.execute("stop")
        early = expected.event
    assert early is None
    assert expected.event is not None
    assert expected.event["event"] == "STOP"
    with session.qmp.expect_event("RESUME", timeout=10):
        session.qmp.execute("cont")
    assert [event["event"] for event in session.qmp.events] == ["STOP", "RESUME"]
    assert session.heard == session.qmp.events


def test_an_event_from_before_the_block_does_not_count(session: Session) -> None:
    with session.qmp.expect_event("STOP", timeout=10):
        session.qmp.execute("stop")
    with (
        pytest.raises(WaitTimeout, match=r"^VM 'it': no QMP event STOP within 0 s; events instead: none$") as caught,
        session.qmp.expect_event("STOP", timeout=0),
    ):
        pass
    assert caught.value.timeout == 0


def stop_and_go(session: Session) -> None:
    session.qmp.execute("stop")
    session.qmp.execute("cont")


def test_what_came_instead_is_named(session: Session) -> None:
    with session.qmp.expect_event("RESUME", timeout=10):
        stop_and_go(session)
    with (
        pytest.raises(WaitTimeout) as caught,
        session.qmp.expect_event("SHUTDOWN", {"guest": True}, timeout=0),
        session.qmp.expect_event("RESUME", timeout=10),
    ):
        stop_and_go(session)
    assert str(caught.value) == (
        "VM 'it': no QMP event SHUTDOWN with {'guest': True} within 0 s; events instead: STOP, RESUME"
    )


@pytest.mark.parametrize("guest", [True, False])
def test_data_must_match(guest: bool, session: Session) -> None:
    data = {"guest": False, "reason": "host-qmp-quit"}
    if guest:
        with (
            pytest.raises(QEMUExited, match="it ended with 0"),
            session.qmp.expect_event("SHUTDOWN", {**data, "guest": True}, timeout=10),
        ):
            session.qmp.quit(10)
    else:
        with session.qmp.expect_event("SHUTDOWN", data, timeout=10) as expected:
            session.qmp.quit(10)
        assert expected.event is not None
        assert expected.event["data"] == data


def test_an_error_in_the_block_is_not_waited_for(session: Session) -> None:
    with pytest.raises(KeyError), session.qmp.expect_event("STOP", timeout=1000):
        raise KeyError


def test_quit_ends_qemu(session: Session) -> None:
    session.qmp.quit(10)
    assert session.process.wait(Deadline(10))
    assert session.process.returncode == 0


def test_qemus_end_ends_a_wait_for_an_event(session: Session) -> None:
    with pytest.raises(QEMUExited, match="it ended with -9"), session.qmp.expect_event("STOP", timeout=1000):
        session.process.signal(signal.SIGKILL)


def test_a_command_after_qemus_end_says_how_it_ended(session: Session) -> None:
    session.process.signal(signal.SIGKILL)
    assert session.process.wait(Deadline(10))
    with pytest.raises(QEMUExited, match="it ended with -9"):
        session.qmp.execute("query-status")


def test_closing_leaves_qemu_alone(session: Session) -> None:
    session.qmp.close()
    session.qmp.close()
    assert session.process.running
    with pytest.raises(QEMUExited, match=r"^VM 'it' is not running: cannot execute 'stop'$"):
        session.qmp.execute("stop")


def test_nobody_greets(io: IOThread) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    qmp = QMP(name="it", io=io, watch=Watch(), on_event=lambda _: None)
    with pytest.raises(QEMUExited, match=r"^VM 'it': no QMP greeting from QEMU: "):
        qmp.connect(ours, Deadline(30))
    qmp.close()
