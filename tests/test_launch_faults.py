"""A machine's start goes wrong in every way that a program given as QEMU can think of: nothing of it stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytest_kvm.qemu.binary import find_qemu
from tests.sessions import PATIENCE, Session, temporary

__all__ = ["temporary"]  # a fixture

INNER = """
    import pytest
    from pytest_kvm import LaunchError, MachineError, QEMUExited

    @pytest.fixture
    def error(vm_factory):
        with pytest.raises(MachineError) as caught:
            vm_factory(image=None, timeout={timeout}).qmp.execute("query-status")
        return caught.value

    {test}
"""
Start = Callable[..., Session]


@pytest.fixture
def start(pytester: pytest.Pytester, temporary: Path) -> Iterator[Start]:
    """Start a session whose QEMU is a script; what it does when it shall start a machine is given."""
    with ExitStack() as stack:

        def started(script: str, test: str, *, timeout: float = 60) -> Session:
            qemu = pytester.path / "wrapper"
            # Asked what it can do, it is QEMU.
            qemu.write_text(
                f"#!/bin/sh\nqemu={find_qemu().path}\n"
                f'case "$*" in\n*chardev=qmp*)\n{script}\n;;\n*) exec "$qemu" "$@" ;;\nesac\n'
            )
            qemu.chmod(0o755)
            pytester.makepyfile(INNER.format(test=test, timeout=timeout))
            return stack.enter_context(
                closing(Session(pytester.path, temporary, f"--kvm-qemu={qemu}", "--kvm-accel=tcg"))
            )

        yield started


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "echo no such board >&2; exit 3",
            "QEMU exited with status 3 before it was up.\nQEMU said: no",
        ),
        ("exit 0", "QEMU exited with status 0 before it was up"),
        ("kill -SEGV $$", "QEMU was killed by SIGSEGV before it was up"),
        ("exec /no/such/qemu", "QEMU exited with status 127 before it was up"),
        # What goes on in the background ends with the script.
        ('"$qemu" "$@" & exit 0', "QEMU exited with status 0 before it was up"),
        ('"$qemu" "$@" & kill -KILL $$', "QEMU was killed by SIGKILL before it was up"),
    ],
    ids=["refuses", "ends", "crashes", "is not there", "goes to the background", "is killed"],
)
def test_it_does_not_start(script: str, text: str, start: Start) -> None:
    session = start(script, f"def test_it(error): assert type(error) is LaunchError and {text!r} in str(error)")
    assert session.end() == 0, session.said()
    assert session.processes() == []
    assert session.left() == []


@pytest.mark.parametrize("script", ["exec sleep 3600", "trap '' TERM; while :; do sleep 1; done"])
def test_it_hangs(script: str, start: Start) -> None:
    text = "QEMU runs, but did not answer within 0.5 s"
    session = start(script, f"def test_it(error): assert {text!r} in str(error)", timeout=0.5)
    assert session.end() == 0, session.said()
    assert session.processes() == []
    assert session.left() == []


@pytest.mark.parametrize("after", [0, 0.02, 0.1])
def test_it_is_killed_after_a_moment(after: float, start: Start) -> None:
    # QEMU is what the script has become; who kills it is in its group.
    script = f'pid=$$; (sleep {after}; kill -KILL $pid) & exec "$qemu" "$@"'
    session = start(
        script,
        """
    def test_it(vm_factory):
        try:
            vm = vm_factory(image=None)
        except (LaunchError, QEMUExited):
            return
        with vm.expect_exit(-9):
            vm.wait_for_shutdown()
    """,
    )
    assert session.end() == 0, session.said()
    assert session.processes() == []
    assert session.left() == []


def test_a_wrapper_that_waits_for_qemu(start: Start, pytester: pytest.Pytester, temporary: Path) -> None:
    os.mkfifo(pytester.path / "ready")
    session = start(
        '"$qemu" "$@"',
        f"""
    @pytest.mark.vm(image=None)
    def test_it(vm):
        assert vm.qmp.execute("query-status")["running"]
        open({str(pytester.path / "ready")!r}, "w").close()
        vm.wait_for_shutdown(timeout=3600)
    """,
    )
    session.heard(pytester.path / "ready")
    (qemu,) = session.processes("qemu")
    session.process.send_signal(signal.SIGKILL)
    session.end()
    # The kernel ends the script, which the session has started; QEMU is the script's.
    assert session.gone(PATIENCE, "wrapper")
    (directory,) = session.left()
    assert session.sweep().startswith(f"{directory}: removed (0 MiB, with QEMU process {qemu})\n")
    assert session.processes() == []
    assert session.left() == []


def test_a_wrapper_that_waits_for_qemu_ends_in_good_order(start: Start) -> None:
    session = start('"$qemu" "$@"', "@pytest.mark.vm(image=None)\n    def test_it(vm): assert vm.running")
    assert session.end() == 0, session.said()
    assert session.processes() == []
    assert session.left() == []
