"""Whatever ends pytest, no QEMU and no file of a machine stays."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
    from pytest_kvm.plugin.launching import LAUNCHER

    def test_long(vm, vm_session_factory, request):
        shared = vm_session_factory(image=None)
        ahead = request.config.stash[LAUNCHER]._ahead._next.result()
        with open({fifo!r}, "w") as fifo:
            print(vm.pid, shared.pid, ahead.pid, file=fifo)
        vm.run("sleep 3600", timeout=None)

    def test_next(vm):
        pass
"""


class Session:
    """A pytest session in a process of its own, in the middle of a test with two machines and the next test's."""

    def __init__(self, pytester: pytest.Pytester, *options: str) -> None:
        self.folder = pytester.mkdir("tmp")
        fifo = pytester.path / "fifo"
        os.mkfifo(fifo)
        pytester.makepyfile(INNER.format(fifo=str(fifo)))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kvm-strict", *options]
        # A directory of its own for temporary files shows what is left there.
        environment = {**os.environ, "TMPDIR": str(self.folder)}
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)
        # The reader waits here until the test has its machines.
        self.machines = [os.pidfd_open(int(pid)) for pid in fifo.read_text().split()]
        assert len(self.machines) == 3
        assert self.left()

    def left(self) -> list[Path]:
        return list(self.folder.glob("pytest-kvm-*"))

    def gone(self, seconds: float) -> bool:
        return all(select.select([machine], [], [], seconds)[0] for machine in self.machines)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_interrupt(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    session = Session(pytester, *options)
    os.killpg(session.process.pid, signal.SIGINT)  # as a terminal does
    assert session.process.wait(timeout=60) == pytest.ExitCode.INTERRUPTED
    assert session.gone(0)
    assert session.left() == []


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_kill(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    session = Session(pytester, *options)
    os.killpg(session.process.pid, signal.SIGKILL)
    assert session.process.wait(timeout=60) == -signal.SIGKILL
    assert session.gone(10)
