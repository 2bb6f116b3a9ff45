"""Which accelerator is believed."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_kvm.errors import AcceleratorUnavailable
from pytest_kvm.host import accel
from pytest_kvm.host.accel import Choice, choose, pace, remembered
from pytest_kvm.host.device import Trouble
from pytest_kvm.host.probe import Result, cannot_probe, probe
from pytest_kvm.qemu.binary import QEMUBinary, find_qemu
from tests.qemu.fakes import binary, program

# isa-debug-exit makes odd numbers of what the probe guest reports: 0x20 and 0x21.
WORKS, MISCOUNTS = "exit 65", "exit 67"
HANGS = "exec sleep 1000"
CRASHES = "echo 'first line' >&2; echo 'failed to initialize kvm: Device or resource busy' >&2; exit 1"


class Place(NamedTuple):
    """A host with a KVM device and an empty cache."""

    device: Path
    memory: Path
    log: Path
    folder: Path

    def qemu(self, script: str, name: str = "qemu") -> QEMUBinary:
        """Make a QEMU that writes down each call."""
        return binary(program(self.folder / name, f'echo "$*" >>{self.log}\n{script}\n'))

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr("pytest_kvm.host.device.DEVICE", str(device))
    monkeypatch.setattr("pytest_kvm.host.accel.platform.machine", lambda: "x86_64")
    return Place(device, tmp_path / "cache" / "host" / "accelerators.json", tmp_path / "log", tmp_path)


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        (WORKS, ""),
        (MISCOUNTS, "a probe guest calculated wrongly"),
        (CRASHES, "a probe guest did not run: failed to initialize kvm: Device or resource busy"),
        ("exit 0", "a probe guest did not run: QEMU ended with 0"),
        ("kill -SEGV $$", "a probe guest did not run: QEMU ended with -11"),
    ],
)
def test_what_the_probe_says(script: str, trouble: str, place: Place) -> None:
    assert probe(place.qemu(script), "kvm", deadline=60).trouble == trouble
    (call,) = place.calls()
    assert "-accel kvm" in call


def test_a_probe_that_makes_no_progress(place: Place) -> None:
    result = probe(place.qemu(HANGS), "kvm", deadline=0.2)
    assert result == Result("opens, but a probe guest did not finish in 0.2 s", seconds=0.2)


def test_the_probe_leaves_no_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be too deep for run directories
        monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", folder)
        probe(place.qemu(WORKS), "kvm", deadline=60)
        probe(place.qemu(HANGS), "kvm", deadline=0.1)
        assert folder in place.calls()[0]
        assert os.listdir(folder) == []


def test_the_real_qemu_counts_right_with_tcg() -> None:
    result = probe(find_qemu(), "tcg", deadline=60)
    assert result.trouble == ""
    assert result.seconds is not None


def test_a_kvm_that_works_is_believed(place: Place) -> None:
    # The probe guest itself runs, in the real QEMU, with another accelerator than QEMU is asked for.
    real = find_qemu()
    script = f'for word; do shift; [ "$word" = kvm ] && word=tcg; set -- "$@" "$word"; done; exec {real.path} "$@"'
    qemu = place.qemu(script)
    assert choose("auto", qemu) == Choice("kvm")
    assert choose("kvm", qemu) == Choice("kvm")
    (call,) = place.calls()
    assert "-accel kvm" in call


def test_a_qemu_that_cannot_run_the_probe_guest(place: Place) -> None:
    qemu = place.qemu(WORKS)
    other = replace(qemu, machines=frozenset({"virt"}))
    bare = replace(qemu, devices=frozenset())
    assert cannot_probe(other) == "there is no probe guest for qemu"
    assert cannot_probe(bare) == "qemu has no isa-debug-exit, which a probe guest needs"
    for each in (other, bare):
        assert str(choose("auto", each)) == f"tcg (kvm: {cannot_probe(each)})"
        assert choose("tcg", each) == Choice("tcg")
        assert pace("tcg", each) == 2.0
    assert place.calls() == []


def test_auto_takes_kvm_where_it_works(place: Place) -> None:
    choice = choose("auto", place.qemu(WORKS))
    assert choice == Choice("kvm")
    assert str(choice) == "kvm"


@pytest.mark.parametrize("asked", ["kvm", "kvm,kernel-irqchip=split"])
def test_kvm_where_it_works(asked: str, place: Place) -> None:
    assert choose(asked, place.qemu(WORKS)).name == "kvm"


def only_kvm(script: str) -> str:
    """Do this when asked for KVM; emulation works."""
    return f'case "$*" in *" kvm "*) {script};; *) {WORKS};; esac'


def test_auto_falls_back_and_says_why(place: Place) -> None:
    choice = choose("auto", place.qemu(only_kvm(MISCOUNTS)))
    assert str(choice) == "tcg (kvm: a probe guest calculated wrongly)"


def test_kvm_that_hangs_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "DEADLINE", 0.1)
    assert str(choose("auto", place.qemu(only_kvm(HANGS)))) == (
        "tcg (kvm: opens, but a probe guest did not finish in 0.1 s)"
    )


@pytest.mark.parametrize("asked", ["tcg", "tcg,thread=single"])
def test_tcg_is_taken_whatever_kvm_does(asked: str, place: Place) -> None:
    assert choose(asked, place.qemu(only_kvm(HANGS))) == Choice("tcg")
    (call,) = place.calls()
    assert "-accel tcg" in call


def test_emulation_that_is_slow_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "EMULATION_DEADLINE", 0.1)
    monkeypatch.setattr(accel, "_PROBE_SECONDS", {"tcg": 0.01})
    qemu = place.qemu(HANGS)
    assert choose("tcg", qemu) == Choice("tcg")
    assert pace("tcg", qemu) == 8.0


def test_emulation_that_does_not_work(place: Place) -> None:
    qemu = place.qemu("echo 'invalid accelerator' >&2; exit 1")
    trouble = "a probe guest did not run: invalid accelerator"
    with pytest.raises(AcceleratorUnavailable) as caught:
        choose("tcg", qemu)
    assert str(caught.value).splitlines() == [
        f"accel='tcg' was asked for, and does not work here: {trouble}",
        "  name a QEMU that can emulate with --kvm-qemu=PATH",
    ]
    with pytest.raises(AcceleratorUnavailable, match=f"^no accelerator works here; kvm: {trouble}; tcg: {trouble}\n"):
        choose("auto", qemu)


@pytest.mark.parametrize("asked", ["hvf", "hvf,x=y"])
def test_that_of_another_system(asked: str, place: Place) -> None:
    with pytest.raises(AcceleratorUnavailable) as caught:
        choose(asked, place.qemu(WORKS))
    assert str(caught.value).splitlines() == [
        "accel='hvf' was asked for, which is not of this system: 'kvm' is",
        "  use accel='auto' for what is here",
    ]


def test_macos(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.accel.platform.system", lambda: "Darwin")
    place.device.unlink()
    assert choose("auto", place.qemu(WORKS)) == Choice("hvf")
    assert choose("hvf", place.qemu(WORKS)) == Choice("hvf")
    only_hvf = f'case "$*" in *" hvf "*) {MISCOUNTS};; *) {WORKS};; esac'
    assert str(choose("auto", place.qemu(only_hvf, "bad"))) == "tcg (hvf: a probe guest calculated wrongly)"


def test_kvm_that_was_demanded_and_does_not_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.accel.guest_fix", lambda _: "do this")
    with pytest.raises(AcceleratorUnavailable) as caught:
        choose("kvm", place.qemu(CRASHES))
    assert str(caught.value).splitlines() == [
        "accel='kvm' was asked for, and does not work here: a probe guest did not run: "
        "failed to initialize kvm: Device or resource busy",
        "  do this",
        "  use accel='auto' to run with TCG (slower) where kvm does not work",
    ]


def test_a_device_that_cannot_be_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.accel.device_trouble", lambda: Trouble("none of yours", "ask for it"))
    qemu = place.qemu(only_kvm("exit 1"))
    assert choose("auto", qemu) == Choice("tcg", "kvm: none of yours", "ask for it")
    assert remembered(qemu) == choose("auto", qemu)
    with pytest.raises(AcceleratorUnavailable, match=r"does not work here: none of yours\n  ask for it\n  use accel"):
        choose("kvm", qemu)
    assert all("-accel tcg" in call for call in place.calls())


@pytest.mark.parametrize(
    ("name", "seconds", "times"),
    [
        ("tcg", 0.1, 2.0),
        ("tcg", 0.5, 2.0),
        ("tcg", 1.0, 4.0),
        ("tcg", 60.0, 8.0),
        ("kvm", 0.1, 1.0),
        ("kvm", 0.5, 2.0),
        ("kvm", 2.0, 8.0),
    ],
)
def test_a_slow_host_gets_more_time(
    name: str, seconds: float, times: float, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "probe", lambda *_, **__: Result(seconds=seconds))
    assert pace(f"{name},a=b", place.qemu(WORKS)) == times


def test_another_architecture(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.accel.platform.machine", lambda: "riscv64")
    assert choose("auto", place.qemu(WORKS)) == Choice("tcg", "kvm: no probe guest for riscv64 yet")


@pytest.mark.parametrize("script", [WORKS, MISCOUNTS])
def test_the_answer_is_remembered(script: str, place: Place) -> None:
    qemu = place.qemu(only_kvm(script))
    assert remembered(qemu) is None
    first = choose("auto", qemu)
    assert choose("auto", qemu) == first
    assert remembered(qemu) == first
    assert len([call for call in place.calls() if "-accel kvm" in call]) == 1


def test_each_binary_has_its_own_answer(place: Place) -> None:
    good, bad = place.qemu(WORKS, "good"), place.qemu(only_kvm(MISCOUNTS), "bad")
    assert [choose("auto", qemu).name for qemu in (good, bad, good, bad)] == ["kvm", "tcg", "kvm", "tcg"]
    assert len(place.calls()) == 3


def test_a_binary_that_changed_is_probed_again(place: Place) -> None:
    qemu = place.qemu(only_kvm(MISCOUNTS))
    assert choose("auto", qemu).name == "tcg"
    place.qemu(WORKS, "new").path.replace(qemu.path)
    assert choose("auto", qemu).name == "kvm"


def test_another_boot_forgets_everything(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu, other = place.qemu(only_kvm(MISCOUNTS)), place.qemu(only_kvm(MISCOUNTS), "other")
    choose("auto", qemu)
    choose("auto", other)
    monkeypatch.setattr(accel, "boot_id", lambda: "another-boot")
    assert remembered(qemu) is None
    choose("auto", qemu)
    assert [key.partition(":")[0] for key in json.loads(place.memory.read_text())] == ["another-boot"] * 2


def test_what_is_remembered_counts_only_with_the_device(place: Place) -> None:
    qemu = place.qemu(WORKS)
    choose("auto", qemu)
    place.device.unlink()
    assert choose("auto", qemu).name == "tcg"
    place.device.touch()
    assert choose("auto", qemu).name == "kvm"
    assert len([call for call in place.calls() if "-accel kvm" in call]) == 1


@pytest.mark.parametrize("damage", ["", "{", '{"a": 1}'])
def test_a_damaged_memory_is_made_anew(damage: str, place: Place) -> None:
    qemu = place.qemu(WORKS)
    choose("auto", qemu)
    place.memory.write_text(damage)
    assert choose("auto", qemu).name == "kvm"
    assert len(json.loads(place.memory.read_text())) == 1


def test_an_entry_that_makes_no_sense_is_replaced(place: Place) -> None:
    qemu = place.qemu(WORKS)
    choose("auto", qemu)
    (key,) = json.loads(place.memory.read_text())
    place.memory.write_text(json.dumps({key: 7}))
    assert choose("auto", qemu).name == "kvm"
    assert remembered(qemu) == Choice("kvm")


def test_without_room_to_remember_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accel, "write_atomically", refuse)
    assert choose("auto", place.qemu(WORKS)) == Choice("kvm")
    assert remembered(place.qemu(WORKS)) is None
