"""QEMU's process: its end is seen, brought about, and certain."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvm.qemu import process as module
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.process import QEMUProcess, describe_end, dying_with_parent
from pytest_kvm.waiting import Deadline, Watch

Start = Callable[[Sequence[str]], QEMUProcess]


class Exits(list[QEMUProcess]):
    """The processes whose end was reported."""


@pytest.fixture
def exits() -> Exits:
    return Exits()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def start(io: IOThread, watch: Watch, exits: Exits, tmp_path: Path) -> Iterator[Start]:
    """Start a command as if it were QEMU; it is killed at the end of the test."""
    with ExitStack() as stack:

        def run(command: Sequence[str]) -> QEMUProcess:
            process = QEMUProcess(
                command, io=io, watch=watch, stderr_path=tmp_path / "log", cwd=tmp_path, on_exit=exits.append
            )
            stack.callback(process.wait, Deadline(10))
            stack.callback(process.signal, signal.SIGKILL)
            return process

        yield run


def read_line(process: QEMUProcess, path: Path) -> None:
    """Wait until the process has opened the named pipe at ``path`` and written a line into it."""
    with path.open() as pipe:
        assert pipe.readline() == "ready\n", process.stderr()


def test_an_exit_is_reported_once(start: Start, exits: Exits) -> None:
    process = start(["sh", "-c", "exit 7"])
    assert process.wait(Deadline(10))
    assert process.returncode == 7
    assert not process.running
    assert exits == [process]


def test_an_exit_ends_a_wait_for_something_else(start: Start, watch: Watch, exits: Exits) -> None:
    process = start(["sleep", "1000"])
    assert not watch.wait_for(lambda: bool(exits), Deadline(0))
    os.kill(process.pid, signal.SIGKILL)
    assert watch.wait_for(lambda: bool(exits), Deadline(10))
    assert process.returncode == -signal.SIGKILL


def test_a_wait_has_its_deadline(start: Start) -> None:
    process = start(["sleep", "1000"])
    assert not process.wait(Deadline(0.01))
    assert process.running
    assert process.returncode is None


def test_what_it_says_is_kept_without_qemus_announcements(start: Start) -> None:
    process = start(["sh", "-c", "echo out; echo 'qemu: info: QEMU waiting for connection on: fd' >&2; echo err >&2"])
    assert process.wait(Deadline(10))
    assert process.stderr() == "out\nerr\n"


def test_only_the_end_of_much_is_returned(start: Start) -> None:
    process = start(["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; printf '\\nlast \\377'"])
    assert process.wait(Deadline(10))
    text = process.stderr()
    assert text.endswith("x\nlast \\xff")
    assert len(text) <= module.STDERR_LIMIT + 3


def test_end_by_sigterm(start: Start) -> None:
    process = start(["sleep", "1000"])
    assert process.end(10)
    assert process.returncode == -signal.SIGTERM


def test_end_by_sigkill(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # A shell with nothing to wait for but itself: what it started would outlive it.
    process = start(["sh", "-c", "trap '' TERM; echo ready >pipe; read -r never <pipe"])
    read_line(process, tmp_path / "pipe")
    assert process.end(0.05)
    assert process.returncode == -signal.SIGKILL


def test_ending_again_does_no_harm(start: Start, exits: Exits) -> None:
    process = start(["true"])
    assert process.wait(Deadline(10))
    assert process.end(0)
    process.signal(signal.SIGKILL)
    assert process.returncode == 0
    assert len(exits) == 1


def test_it_has_a_session_of_its_own(start: Start) -> None:
    process = start(["sleep", "1000"])
    assert os.getsid(process.pid) == process.pid


def test_descriptors_are_passed(io: IOThread, watch: Watch, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(reader) as file:
        process = QEMUProcess(
            ["sh", "-c", f"echo through >/dev/fd/{writer}"],
            io=io,
            watch=watch,
            stderr_path=tmp_path / "log",
            pass_fds=[writer],
            cwd=tmp_path,
            on_exit=lambda _: None,
        )
        os.close(writer)
        assert file.read() == "through\n"
    assert process.wait(Deadline(10))


def test_without_setpriv(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.qemu.process.shutil.which", lambda _: None)
    process = start(["/bin/sh", "-c", "echo $0 is pid $$; exit 5", "it"])
    assert process.command == ["/bin/sh", "-c", "echo $0 is pid $$; exit 5", "it"]
    assert process.wait(Deadline(10))
    assert (process.returncode, process.stderr()) == (5, f"it is pid {process.pid}\n")


@pytest.mark.parametrize("program", ["setpriv", "busybox", None])
def test_a_parent_that_died_in_the_moment_of_the_start(
    program: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "busybox":
        (tmp_path / "busybox").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "busybox").chmod(0o755)
        (tmp_path / "setpriv").symlink_to("busybox")
        monkeypatch.setattr("pytest_kvm.qemu.process.shutil.which", lambda _: str(tmp_path / "setpriv"))
    elif program is None:
        monkeypatch.setattr("pytest_kvm.qemu.process.shutil.which", lambda _: None)
    command = dying_with_parent(["sh", "-c", "echo $0 runs", "it"])
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"it runs\n"
    # Its parent is another one, as it is when that one has died.
    adopted = subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command], capture_output=True, check=False)
    assert (adopted.returncode, adopted.stdout) == (125, b"")


def test_what_a_wrapper_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    process = start(["sh", "-c", "sleep 1000 & echo $! >pid; exit 3"])
    assert process.wait(Deadline(10))
    assert process.returncode == 3
    try:
        started = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(started, select.POLLIN)
    assert poll.poll(10_000)
    os.close(started)


def test_the_log_is_locked_until_the_last_one_has_ended(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start(["sh", "-c", "echo ready >pipe; read -r never <pipe"])
    read_line(process, tmp_path / "pipe")
    with (tmp_path / "log").open() as log:
        with pytest.raises(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert process.end(10)
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_real_qemu(start: Start) -> None:
    process = start([str(find_qemu().path), "-machine", "none", "-S", "-nodefaults", "-display", "none"])
    assert process.end(10)
    # Before QEMU handles it the signal kills; after that QEMU exits by itself.
    assert process.returncode in (0, -signal.SIGTERM)


def test_real_qemu_that_refuses(start: Start) -> None:
    process = start([str(find_qemu().path), "-machine", "no-such-machine"])
    assert process.wait(Deadline(10))
    assert process.returncode == 1
    assert "unsupported machine type" in process.stderr()


STARTER = """
import sys
from pathlib import Path
from pytest_kvm.qemu import process as module
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.waiting import Watch

folder = Path(sys.argv[1])
if sys.argv[2] == "without":
    module.shutil.which = lambda name: None
process = module.QEMUProcess(
    sys.argv[3:],
    io=IOThread(), watch=Watch(), stderr_path=folder / "log", cwd=folder, on_exit=lambda process: None,
)
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("setpriv", ["with", "without"])
def test_qemu_dies_with_the_process_that_started_it(setpriv: str, tmp_path: Path) -> None:
    qemu = [str(find_qemu().path), "-machine", "none", "-S", "-nodefaults", "-display", "none"]
    command = [sys.executable, "-c", STARTER, str(tmp_path), setpriv, *qemu, "-qmp", f"pipe:{tmp_path}/qmp"]
    for end in ("in", "out"):
        os.mkfifo(tmp_path / f"qmp.{end}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            # Both ends open as QEMU opens them, in its order; its greeting shows that QEMU itself runs.
            with (tmp_path / "qmp.in").open("w"), (tmp_path / "qmp.out").open() as answers:
                assert '"QMP"' in answers.readline()
                starter.kill()
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                assert poll.poll(10_000), "QEMU outlived the process that started it"
        finally:
            os.close(pidfd)


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (None, "is still running"),
        (0, "exited with status 0"),
        (1, "exited with status 1"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
    ],
)
def test_describing_an_end(returncode: int | None, text: str) -> None:
    assert describe_end(returncode) == text
