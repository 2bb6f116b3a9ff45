"""Whatever happens to a template, no test gets a wrong guest: another template is made, or the machine is booted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_kvm import VM, Drive
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.machine import library, saving
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings
from pytest_kvm.machine.state import DEVICES, RAM, TRANSCRIPT, State, write
from pytest_kvm.machine.templates import Impossible, Templates
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.waiting import Deadline
from tests.machine.test_clones import kind
from tests.stores import own_cache

SPEC = VMSpec(accel="tcg", drives=[Drive(size="4M")])


class Bench:
    """A store of templates, and machines that use it, one session after the other."""

    def __init__(self, cache: Path) -> None:
        self.store = Templates(cache / "templates")
        self.said: list[str] = []
        self.limit = 1 << 40
        self._launcher = self._new()

    def _new(self) -> Launcher:
        return Launcher(Settings(template_limit=self.limit), report=self.said.append)

    def vm(self, spec: VMSpec = SPEC) -> VM:
        return self._launcher.create(spec)

    def works(self, spec: VMSpec = SPEC) -> tuple[str, str]:
        """Return how a machine came up that worked."""
        vm = self.vm(spec)
        try:
            assert vm.run("echo works; head -c 4 /dev/vda | tr -d '\\0'").stdout == "works\n"
            return kind(vm)
        finally:
            vm.close()

    def next_session(self) -> None:
        self._launcher.close()
        self._launcher = self._new()

    @property
    def template(self) -> Path:
        (entry,) = self.store.entries()
        return self.store.directory / os.readlink(self.store.directory / entry.key)

    def close(self) -> None:
        self._launcher.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cache = own_cache(tmp_path)
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(cache))
    made = Bench(cache)
    yield made
    made.close()


def change(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def refused(template: Path) -> None:
    """Let the state pass for what was saved, and be nothing that QEMU takes."""
    guest = State.load(template).guest
    change(template / DEVICES, (template / DEVICES).read_bytes()[:1000])
    write(template, guest)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "devices are cut off": lambda template: change(template / DEVICES, (template / DEVICES).read_bytes()[:1000]),
    "RAM is cut off": lambda template: os.truncate(template / RAM, 1 << 20),
    "a file is missing": lambda template: (template / TRANSCRIPT).unlink(),
    "the folder is missing": shutil.rmtree,
    "QEMU refuses it": refused,
}


USUAL = ("QEMU refuses it",)


@pytest.mark.parametrize(
    "damage",
    [pytest.param(do, marks=[] if name in USUAL else pytest.mark.slow, id=name) for name, do in DAMAGE.items()],
)
def test_it_is_made_again(bench: Bench, damage: Callable[[Path], object]) -> None:
    assert bench.works() == ("clone", "")
    first = bench.template
    damage(first)
    assert bench.works() == ("clone", "")  # in the session that has it open …
    second = bench.template
    assert second != first
    damage(second)
    bench.next_session()
    assert bench.works() == ("clone", "")  # … and in the next one
    assert bench.template != second


def forbid_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    def boot(*_: object) -> None:
        pytest.fail("something was booted")

    monkeypatch.setattr("pytest_kvm.machine.starting.boot", boot)


def test_a_second_session_boots_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.works() == ("clone", "")
    bench.next_session()
    forbid_boots(monkeypatch)
    assert bench.works() == ("clone", "")


@pytest.mark.slow
def test_its_disk_stays_for_those_who_use_it(bench: Bench) -> None:
    with contextlib.closing(Launcher(Settings())) as other, contextlib.closing(other.create(SPEC)) as vm:
        vm.run("echo mine | dd of=/dev/vda conv=fsync")
        damaged = bench.template
        refused(damaged)
        assert bench.works() == ("clone", "")
        assert bench.template != damaged
        bench.store.prune(1 << 40)
        vm.power_cut()
        vm.start()
        assert vm.run("head -c 4 /dev/vda").stdout == "mine"
    bench.store.prune(1 << 40)
    assert not damaged.exists()


@pytest.mark.slow
def test_a_file_that_is_changed_while_it_boots(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = shutil.copy(tiny_image().kernel or "", tmp_path / "kernel")
    spec = SPEC.replace(kernel=kernel)

    def settle(_: VM) -> None:
        with Path(kernel).open("ab") as file:
            file.write(b"more")

    with monkeypatch.context() as patch:
        patch.setattr(library, "_settle", settle)
        assert bench.works(spec) == ("boot", "one of its files was changed while its template was made")
    assert bench.works(spec) == ("clone", "")  # of a template of its own


def no_room(*_: object) -> None:
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize(
    "step", [*(pytest.param(step, marks=pytest.mark.slow) for step in ("os", "copy_sparse", "create_overlay")), "write"]
)
def test_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with monkeypatch.context() as patch:
        # While QEMU sends the devices' state, and in each step after that.
        patch.setattr(saving, step, SimpleNamespace(write=no_room) if step == "os" else lambda *_, **__: no_room())
        place = f"{bench.store.directory}: No space left on device (PYTEST_KVM_CACHE names another place)"
        reason = f"its template could not be written to {place}"
        assert bench.works() == ("boot", reason)
        assert bench.works() == ("boot", reason)  # without trying again
    assert [path.name for path in bench.store.directory.iterdir() if not path.name.startswith(".")] == []
    bench.next_session()
    assert bench.works() == ("clone", "")


def test_the_limit_holds_when_the_session_has_ended(bench: Bench) -> None:
    bench.limit = 1
    bench.next_session()
    assert bench.works() == ("clone", "")
    assert len(bench.store.entries()) == 1  # in use
    bench.next_session()
    assert bench.store.entries() == []


@pytest.mark.slow
def test_what_makes_a_session_slow_is_told_once(bench: Bench) -> None:
    bench.store.directory.write_text("in the way")
    bench.works()
    bench.works()
    (line,) = bench.said
    reason = f"no template can be kept in {bench.store.directory}: "
    assert line.startswith(f"VM 'vm' is booted, as it will be in each test: {reason}")


def test_a_directory_that_cannot_be_written(bench: Bench) -> None:
    bench.store.directory.write_text("in the way")
    how, reason = bench.works()
    assert how == "boot"
    assert reason.startswith(f"no template can be kept in {bench.store.directory}: ")


def test_a_directory_that_cannot_be_read(bench: Bench, tmp_path: Path) -> None:
    bench.store.directory.symlink_to(bench.store.directory)
    with pytest.raises(Impossible, match=f"no template can be kept in {bench.store.directory}: "):
        bench.store.open("key")
    iso = tmp_path / "a.iso"
    iso.write_bytes(bytes(1 << 16))
    with contextlib.closing(bench.vm(VMSpec(accel="tcg", cdrom=iso))) as vm:
        assert kind(vm)[1].startswith("drive 'cdrom0' is a file, ")


@pytest.mark.slow
def test_somebody_else_takes_long(bench: Bench) -> None:
    bench.works()
    (entry,) = bench.store.entries()
    bench.next_session()
    assert bench.store.remove(entry.key)
    with bench.store.making(entry.key, Deadline(10)):
        kind, reason = bench.works(SPEC.replace(timeout=20))
    assert kind == "boot"
    assert reason == "another process has been making its template for 20 s"


KILLED = """
import os, signal
from pytest_kvm.machine import library
from tests.machine.test_damage import SPEC
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings
def die(*arguments, **keywords):
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
library.{step} = die
Launcher(Settings()).create(SPEC)
"""


@pytest.mark.parametrize("step", [pytest.param("save_devices", marks=pytest.mark.slow), "complete"])
def test_sigkill_while_it_is_saved(bench: Bench, step: str, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(step=step)],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # its machine's directory stays
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert bench.store.entries() == []
    assert bench.works() == ("clone", "")
    left = [path for path in bench.store.directory.iterdir() if not path.name.startswith(".")]
    assert len(left) == 2  # the link and its folder


@pytest.mark.slow
def test_a_file_that_one_machine_has(bench: Bench, tmp_path: Path) -> None:
    iso = tmp_path / "a.iso"
    iso.write_bytes(b"iso".ljust(1 << 16, b"\0"))
    spec = VMSpec(accel="tcg", cdrom=iso)
    kinds = []
    for _ in range(2):
        vm = bench.vm(spec)
        assert vm.run("head -c 3 /dev/sr0").stdout == "iso"
        kinds.append(kind(vm))
        vm.close()
    assert kinds == [
        (
            "boot",
            f"drive 'cdrom0' is a file, {iso}, that a template would be for; one is made when it is asked for again",
        ),
        ("clone", ""),
    ]
    other = tmp_path / "b.iso"
    other.write_bytes(b"ISO".ljust(1 << 16, b"\0"))
    vm = bench.vm(spec.replace(cdrom=other, start="clone"))
    assert vm.run("head -c 3 /dev/sr0").stdout == "ISO"
    assert kind(vm) == ("clone", "")
    vm.close()
