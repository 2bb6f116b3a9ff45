"""Which accelerator is believed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_kvm.errors import AcceleratorUnavailable
from pytest_kvm.host import accel
from pytest_kvm.host.accel import Choice, choose, probe, remembered
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
    monkeypatch.setattr(accel, "DEVICE", str(device))
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
    assert probe(place.qemu(script)) == trouble
    (call,) = place.calls()
    assert "-accel kvm" in call


def test_a_probe_that_makes_no_progress(place: Place) -> None:
    assert probe(place.qemu(HANGS), deadline=0.2) == "opens, but a probe guest did not finish in 0.2 s"


def test_the_probe_leaves_no_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be too deep for run directories
        monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", folder)
        probe(place.qemu(WORKS))
        probe(place.qemu(HANGS), deadline=0.1)
        assert folder in place.calls()[0]
        assert os.listdir(folder) == []


def test_the_real_qemu_counts_right_with_tcg() -> None:
    assert probe(find_qemu(), "tcg", deadline=60) == ""


def test_auto_takes_kvm_where_it_works(place: Place) -> None:
    choice = choose("auto", place.qemu(WORKS))
    assert choice == Choice("kvm")
    assert str(choice) == "kvm"


@pytest.mark.parametrize("asked", ["kvm", "kvm,kernel-irqchip=split"])
def test_kvm_where_it_works(asked: str, place: Place) -> None:
    assert choose(asked, place.qemu(WORKS)).name == "kvm"


def test_auto_falls_back_and_says_why(place: Place) -> None:
    choice = choose("auto", place.qemu(MISCOUNTS))
    assert str(choice) == "tcg (kvm: a probe guest calculated wrongly)"


def test_kvm_that_hangs_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel.probe, "__kwdefaults__", {"deadline": 0.1})
    assert str(choose("auto", place.qemu(HANGS))) == ("tcg (kvm: opens, but a probe guest did not finish in 0.1 s)")


@pytest.mark.parametrize("asked", ["tcg", "tcg,thread=single"])
def test_tcg_is_taken_without_a_probe(asked: str, place: Place) -> None:
    assert choose(asked, place.qemu(WORKS)) == Choice("tcg")
    assert place.calls() == []


def test_kvm_that_was_demanded_and_does_not_work(place: Place) -> None:
    with pytest.raises(AcceleratorUnavailable) as caught:
        choose("kvm", place.qemu(CRASHES))
    assert str(caught.value).splitlines() == [
        "accel='kvm' was asked for, and does not work here: a probe guest did not run: "
        "failed to initialize kvm: Device or resource busy",
        "  use accel='auto' to run with TCG (slower) where KVM does not work",
    ]


def test_no_device(place: Place) -> None:
    place.device.unlink()
    qemu = place.qemu(WORKS)
    assert choose("auto", qemu) == Choice("tcg", f"kvm: no {place.device}")
    with pytest.raises(
        AcceleratorUnavailable, match=f"^accel='kvm' was asked for, and does not work here: no {place.device}\n"
    ):
        choose("kvm", qemu)
    assert place.calls() == []


def test_no_permission(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may open everything: the question is what is answered.
    monkeypatch.setattr(
        "pytest_kvm.host.accel.os.access", lambda path, mode: not (str(path) == str(place.device) and mode == 6)
    )
    assert choose("auto", place.qemu(WORKS)) == Choice("tcg", f"kvm: no permission for {place.device}")
    assert place.calls() == []


def test_another_architecture(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.accel.platform.machine", lambda: "riscv64")
    assert choose("auto", place.qemu(WORKS)) == Choice("tcg", "kvm: no probe guest for riscv64 yet")


@pytest.mark.parametrize("script", [WORKS, MISCOUNTS])
def test_the_answer_is_remembered(script: str, place: Place) -> None:
    qemu = place.qemu(script)
    assert remembered(qemu) is None
    first = choose("auto", qemu)
    assert choose("auto", qemu) == first
    assert remembered(qemu) == first
    assert len(place.calls()) == 1


def test_each_binary_has_its_own_answer(place: Place) -> None:
    good, bad = place.qemu(WORKS, "good"), place.qemu(MISCOUNTS, "bad")
    assert [choose("auto", qemu).name for qemu in (good, bad, good, bad)] == ["kvm", "tcg", "kvm", "tcg"]
    assert len(place.calls()) == 2


def test_a_binary_that_changed_is_probed_again(place: Place) -> None:
    qemu = place.qemu(MISCOUNTS)
    assert choose("auto", qemu).name == "tcg"
    place.qemu(WORKS, "new").path.replace(qemu.path)
    assert choose("auto", qemu).name == "kvm"


def test_another_boot_forgets_everything(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu, other = place.qemu(MISCOUNTS), place.qemu(MISCOUNTS, "other")
    choose("auto", qemu)
    choose("auto", other)
    monkeypatch.setattr(accel, "boot_id", lambda: "another-boot")
    assert remembered(qemu) is None
    choose("auto", qemu)
    assert [key.partition(":")[0] for key in json.loads(place.memory.read_text())] == ["another-boot"]


def test_what_is_remembered_counts_only_with_the_device(place: Place) -> None:
    qemu = place.qemu(WORKS)
    choose("auto", qemu)
    place.device.unlink()
    assert choose("auto", qemu).name == "tcg"
    place.device.touch()
    assert choose("auto", qemu).name == "kvm"
    assert len(place.calls()) == 1


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
