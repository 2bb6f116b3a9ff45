"""A pytest session under test, with machines that only write down what happens to them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

import pytest_kvm

# A launcher that takes the place of the real one in the inner session.
LAUNCHER = """
import types
from pytest_kvm.machine.disks import check_files
from pytest_kvm.errors import BootTimeout, ImageUnavailable, TeardownError
from pytest_kvm.machine.verdicts.findings import Findings
from pytest_kvm.waiting import Watch
from pytest_kvm.qemu.iothread import IOThread

def note(*words):
    with LOG.open("a") as log:
        print(*words, file=log)

class StandIn:
    def __init__(self, spec):
        self.spec, self.name, self.broken, self.activity = spec, spec.name, None, 0
        self.serial = None
        self.watcher = types.SimpleNamespace(findings=Findings(Watch()))

    def receive(self):
        pass

    def evidence(self, *, screen=False):
        return None

    def close(self):
        note("close", self.name)
        if "untidy" in self.name:
            raise TeardownError(f"VM '{self.name}' left something behind")

class Share:
    def __init__(self, name):
        self.name = name

    def release(self):
        note("release", self.name)

class Launcher:
    def __init__(self, settings, *, timeout, report, leave, heir):
        note("launcher", settings, timeout)
        report("made a launcher")

    def io(self):
        return IOThread()

    def prepare(self, spec):
        PREPARED.append(spec)

    def reserve(self, specs, holder):
        specs = list(specs)
        note("reserve", *(spec.name for spec in specs), "for", holder.test)
        return [Share(spec.name) for spec in specs]

    def create(self, spec, snapshot=None, *, holder, share=None):
        check_files(spec)
        if spec.image == "missing":
            raise ImageUnavailable("image 'missing' is not here", hint="fetch it")
        if spec.image == "stuck":
            self.wait(spec)
        note("create", spec.name, spec.memory)
        return StandIn(spec)

    def wait(self, spec):
        try:
            raise TimeoutError("deep inside")
        except TimeoutError as error:
            raise BootTimeout(f"VM '{spec.name}' did not become ready within 1 s", timeout=1) from error

    def close(self):
        note("closed launcher")
"""

# Its frames count as ours in tracebacks, as the real one's do.
FILE = str(Path(pytest_kvm.__file__).parent / "machine" / "stand_in.py")

STAND_IN = f"""
import sys
import types
from pathlib import Path

stand_in = types.ModuleType("pytest_kvm.machine.launcher")
stand_in.PREPARED = []
stand_in.LOG = Path(__file__).with_name("events.log")
exec(compile({LAUNCHER!r}, {FILE!r}, "exec"), vars(stand_in))
sys.modules[stand_in.__name__] = stand_in
"""


class Scene(Protocol):
    """Makes the inner session's files: ``test_it.py``, others by name, an addition to conftest.py."""

    def __call__(self, test: str = "", /, *, conftest: str = "", **files: str) -> pytest.Pytester: ...


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scene(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> Scene:
    # What is known about QEMU is remembered there; each inner session has a HOME of its own and would ask again.
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(shared_cache))
    # Lines that are matched must not be cut to the terminal's width.
    monkeypatch.setenv("COLUMNS", "250")

    def make(test: str = "", /, *, conftest: str = "", **files: str) -> pytest.Pytester:
        pytester.makeini("[pytest]\naddopts = --strict-markers -p no:hypothesispytest\n")
        pytester.makeconftest(STAND_IN + conftest)
        pytester.makepyfile(test_it=IMPORTS + test, **{name: IMPORTS + text for name, text in files.items()})
        return pytester

    return make


IMPORTS = """
import re
import pytest
from pytest_kvm import Drive, FromFixture, HostError, MachineError, Nic, SpecError, VMSpec, vm_parametrize
"""


def events(pytester: pytest.Pytester) -> list[str]:
    """Return what happened to machines in the inner session."""
    log = pytester.path / "events.log"
    return log.read_text().splitlines() if log.exists() else []
