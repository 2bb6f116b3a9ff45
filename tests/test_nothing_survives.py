"""Whatever ends pytest, or a worker: no process of a session stays, and no file longer than until the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from textwrap import dedent, indent

import pytest

from tests.sessions import PATIENCE, Session, temporary

__all__ = ["temporary"]  # a fixture

# In the middle of a test with two machines, and the next test's.
INNER = """
import os
import pytest
from pytest_kvm.plugin.launching import LAUNCHER

@pytest.fixture
def torn_down():
    yield
    open({folder!r} + "/torn-down", "w").close()

def test_long(torn_down, vm, vm_session_factory, request):
    shared = vm_session_factory(image=None)
    ahead = request.config.stash[LAUNCHER]._ahead._next.result()
    try:
        with open({folder!r} + "/ready", "w") as fifo:
            print(os.getpid(), vm.pid, shared.pid, ahead.pid, file=fifo)
{body}
    finally:
{last}

def test_next(vm):
    pass
"""
WAIT = 'vm.run("sleep 3600", timeout=None)'
Start = Callable[..., tuple[Session, int]]


@pytest.fixture
def start(pytester: pytest.Pytester, temporary: Path) -> Iterator[Start]:
    """Start a session; return it, in the middle of its first test, and the process that runs that."""
    with ExitStack() as stack:

        def started(*options: str, body: str = WAIT, last: str = "pass", conftest: str = "") -> tuple[Session, int]:
            body_, last_ = (indent(dedent(part), " " * 8) for part in (body, last))
            pytester.makepyfile(INNER.format(folder=str(pytester.path), body=body_, last=last_))
            pytester.makeconftest(conftest)
            os.mkfifo(pytester.path / "ready")
            session = stack.enter_context(closing(Session(pytester.path, temporary, *options)))
            worker, *machines = (int(pid) for pid in session.heard(pytester.path / "ready").split())
            if body == WAIT:
                assert sorted(session.processes("qemu")) == sorted(machines)
                assert len(machines) == len(session.left()) == 3
            return session, worker

        yield started


both = pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])


@both
def test_interrupt(start: Start, options: tuple[str, ...]) -> None:
    session, _ = start(*options)
    os.killpg(session.process.pid, signal.SIGINT)  # as a terminal does
    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert session.processes() == []
    assert session.left() == []


def test_interrupt_twice(start: Start, pytester: pytest.Pytester) -> None:
    os.mkfifo(pytester.path / "teardown")
    conftest = f"""
        import pytest, signal
        @pytest.fixture(autouse=True, scope="session")
        def slow():
            yield
            open({str(pytester.path / "teardown")!r}, "w").close()
            signal.pause()
    """
    session, _ = start(conftest=conftest)
    session.process.send_signal(signal.SIGINT)
    session.heard(pytester.path / "teardown")
    session.process.send_signal(signal.SIGINT)
    assert session.end() != 0
    assert session.gone(PATIENCE)
    session.sweep()
    assert session.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(number: signal.Signals, start: Start, pytester: pytest.Pytester) -> None:
    session, _ = start("--junitxml=report.xml")
    session.process.send_signal(number)
    assert session.end() == 128 + number
    assert session.processes() == []
    assert session.left() == []
    assert (pytester.path / "torn-down").exists()
    assert (pytester.path / "report.xml").exists()
    assert f"Terminated: {number.name} !" in session.said()


def test_a_second_signal_ends_it_at_once(start: Start, pytester: pytest.Pytester) -> None:
    os.mkfifo(pytester.path / "teardown")
    last = f"""
        open({str(pytester.path / "teardown")!r}, "w").close()
        vm.run("sleep 3600", timeout=None)
    """
    session, _ = start(last=last)
    session.process.send_signal(signal.SIGTERM)
    session.heard(pytester.path / "teardown")
    session.process.send_signal(signal.SIGTERM)
    assert session.end() == -signal.SIGTERM
    assert session.gone(PATIENCE)
    session.sweep()
    assert session.left() == []


def test_a_signal_in_the_last_teardown_lets_it_go_on(start: Start, pytester: pytest.Pytester) -> None:
    conftest = f"""
        import os, pytest, signal
        @pytest.fixture(autouse=True, scope="session")
        def slow():
            yield
            os.kill(os.getpid(), signal.SIGTERM)
            open({str(pytester.path / "went-on")!r}, "w").close()
    """
    session, _ = start(conftest=conftest, body="pass")
    assert session.end() == 128 + signal.SIGTERM
    assert session.left() == []
    assert (pytester.path / "went-on").exists()
    assert "2 passed" in session.said()


def test_a_signal_to_all_of_it(start: Start) -> None:
    session, _ = start("-n", "1")
    os.killpg(session.process.pid, signal.SIGTERM)
    assert session.end() == -signal.SIGTERM
    assert session.gone(PATIENCE)
    assert session.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_ends_with_its_controller(number: signal.Signals, start: Start, pytester: pytest.Pytester) -> None:
    body = f"""
        try:
            {WAIT}
        except BaseException as error:
            with open({str(pytester.path / "error")!r}, "w") as file:
                file.write(type(error).__name__)
            raise
    """
    session, _ = start("-n", "1", body=body)
    session.process.send_signal(number)
    assert session.end() == -number
    assert session.gone(PATIENCE)
    assert session.left() == []
    assert (pytester.path / "error").read_text() == "Terminated"
    assert (pytester.path / "torn-down").exists()


def test_a_worker_that_does_not_end_has_no_machine_any_more(start: Start) -> None:
    # It swallows what shall end it.
    body = """
        import signal
        while True:
            try:
                signal.pause()
            except BaseException:
                pass
    """
    session, worker = start("-n", "1", body=body)
    session.process.kill()
    session.end()
    assert session.gone(PATIENCE, "qemu")
    assert worker in session.processes()
    assert session.gone(PATIENCE)  # execnet sees to that


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_is_replaced(number: signal.Signals, start: Start) -> None:
    session, worker = start("-n", "1")
    os.kill(worker, number)
    assert session.end() == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed" in session.said()
    assert "worker 'gw0' crashed while running" in session.said()
    assert session.processes() == []
    assert session.left() == []


@both
def test_kill(start: Start, options: tuple[str, ...]) -> None:
    session, _ = start(*options)
    os.killpg(session.process.pid, signal.SIGKILL)
    assert session.end() == -signal.SIGKILL
    assert session.gone(PATIENCE)
    assert len(session.left()) == 3
    assert "3 directories that killed sessions left removed" in session.sweep()
    assert session.left() == []


@pytest.mark.parametrize("body", ["os._exit(7)", "os.abort()"])
def test_it_ends_itself(body: str, start: Start) -> None:
    session, _ = start(body=body)
    assert session.end() in (7, -signal.SIGABRT)
    assert session.gone(PATIENCE)
    session.sweep()
    assert session.left() == []


def test_the_next_session_sweeps(start: Start, pytester: pytest.Pytester, temporary: Path) -> None:
    session, _ = start()
    session.process.kill()
    session.end()
    assert session.gone(PATIENCE)
    pytester.makepyfile("def test_empty(): pass")
    with closing(Session(pytester.path, temporary)) as other:
        assert other.end() == 0
        assert len(other.left()) == 3  # no machine, no sweep
    pytester.makepyfile("def test_machine(vm): pass")
    with closing(Session(pytester.path, temporary)) as other:
        assert other.end() == 0
        assert "kvm: 3 directories that killed sessions left removed" in other.said()
        assert other.left() == []


def test_exception_in_a_fixture(pytester: pytest.Pytester, temporary: Path) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def broken(vm, vm_session_factory):
            vm_session_factory(image=None)
            raise RuntimeError("broken")

        @pytest.fixture
        def unclean(vm):
            yield
            raise RuntimeError("unclean")

        def test_setup(broken): ...
        def test_teardown(unclean): ...
    """)
    with closing(Session(pytester.path, temporary)) as session:
        assert session.end() == 1
        assert "1 passed, 2 errors" in session.said()
        assert session.processes() == []
        assert session.left() == []


# Handlers of others


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(42))", 42),
        ("faulthandler.register(signal.SIGTERM, chain=True)", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0),
    ],
    ids=["a handler", "faulthandler", "ignored"],
)
def test_others_handlers_stay(before: str, kept: int, start: Start) -> None:
    session, _ = start(
        conftest=f"import faulthandler, os, signal\n{before}", body="os.kill(os.getpid(), __import__('signal').SIGTERM)"
    )
    assert session.end() == kept
    assert session.gone(PATIENCE)
    session.sweep()
    assert session.left() == []


def test_handlers_are_there_while_there_are_machines(pytester: pytest.Pytester, temporary: Path) -> None:
    pytester.makepyfile("""
        import signal

        def test_before():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

        def test_with(vm_factory):
            assert callable(signal.getsignal(signal.SIGTERM))
            assert callable(signal.getsignal(signal.SIGHUP))
    """)
    with closing(Session(pytester.path, temporary)) as session:
        assert session.end() == 0, session.said()
