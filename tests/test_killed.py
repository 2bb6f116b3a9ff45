"""Killed at any moment, two workers leave no QEMU, and the next session passes and tidies up.

``PYTEST_KVM_KILLS`` is how often (default: 2), ``PYTEST_KVM_KILL_SEED`` repeats what a failure has printed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.sessions import PATIENCE, Session, temporary
from tests.stores import own_cache

__all__ = ["temporary"]  # a fixture

# Boots, templates, clones, machines made ahead, overlays, snapshots: something of everything that can be cut in two.
INNER = """
    import pytest
    from pytest_kvm import Drive

    @pytest.fixture(scope="session")
    def shared(vm_session_factory):
        return vm_session_factory(image=None)

    @pytest.mark.parametrize("n", range(4))
    def test_clone(vm, n):
        assert vm.run("echo $((6 * 7))").stdout == "42\\n"

    @pytest.mark.vm(drives=[Drive(size="8M")])
    def test_disk(vm, shared):
        vm.run("head -c 1000000 /dev/urandom >/dev/vda")

    def test_snapshot(vm):
        state = vm.snapshot()
        vm.restore(state)
        vm.run("true")

    @pytest.mark.vm(start="boot", image=None)
    def test_two(vm, vm_factory):
        vm_factory(image=None)
"""
KILLS = int(os.environ.get("PYTEST_KVM_KILLS", "2"))
# What is promised, where somebody counts by hand; no test depends on how fast a host is.
LIMIT = 2.0 if "PYTEST_KVM_KILLS" in os.environ else PATIENCE


def passes(folder: Path, temporary: Path, environment: dict[str, str]) -> float:
    """Let a session run to its end, and return how many seconds it took."""
    began = time.monotonic()
    with closing(Session(folder, temporary, "-n", "2", environment=environment)) as session:
        assert session.end() == 0, session.said()
        assert session.processes("qemu") == []
        return time.monotonic() - began


def test_killed_at_any_moment(pytester: pytest.Pytester, temporary: Path) -> None:
    seed = os.environ.get("PYTEST_KVM_KILL_SEED") or f"{random.SystemRandom().getrandbits(32)}"
    print(f"PYTEST_KVM_KILL_SEED={seed}")
    dice = random.Random(seed)
    pytester.makepyfile(INNER)
    cache = own_cache(pytester.path)
    environment = {"PYTEST_KVM_CACHE": str(cache)}
    whole = passes(pytester.path, temporary, environment)
    slowest = 0.0
    for number in range(KILLS):
        if dice.random() < 0.25:  # templates are made, and half of one may be left
            shutil.rmtree(cache / "templates")
        moment, group = dice.uniform(0, whole), dice.random() < 0.3
        print(f"kill {number}: after {moment:.3f} s, {'everything' if group else 'pytest'}")
        with closing(Session(pytester.path, temporary, "-n", "2", environment=environment)) as session:
            time.sleep(moment)
            running = len(session.processes("qemu"))
            (os.killpg if group else os.kill)(session.process.pid, signal.SIGKILL)
            killed = time.monotonic()
            assert session.gone(LIMIT, "qemu"), f"{len(session.processes('qemu'))} of {running} QEMUs survived"
            slowest = max(slowest, time.monotonic() - killed)
            whole = passes(pytester.path, temporary, environment)
            assert session.gone(PATIENCE), "a worker survived"
            session.sweep()
            assert session.left() == []
    print(f"{KILLS} times; the last QEMU was gone after {slowest:.2f} s at most")
