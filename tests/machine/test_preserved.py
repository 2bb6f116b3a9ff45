"""Folders that hold no machine, or not the one that was saved."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import MachineError, VMFactory
from pytest_kvm.errors import BudgetExceeded
from pytest_kvm.host.amounts import Limits
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.preserved import LOG, MANIFEST, MEMORY, Preserved, digest
from pytest_kvm.machine.preserving import preserve
from pytest_kvm.machine.settings import Settings


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with closing(Launcher(Settings(limits=Limits()))) as made:
        yield made


@pytest.fixture(scope="module")
def saved(vm_session_factory: VMFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty machine, saved: nothing in it takes long."""
    folder = tmp_path_factory.mktemp("saved") / "vm" / "state"
    with closing(vm_session_factory("saved", image=None)) as vm:
        preserve(vm, folder, test="test_it")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "vm" / "state"))


def change(folder: Path, change_it: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change_it(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_folder_or_the_one_around_it(folder: Path, launcher: Launcher) -> None:
    for path in (folder, folder.parent):
        found = Preserved.load(path, launcher.binary)
        assert (found.path, found.spec.name, found.status, found.loaded) == (folder, "saved", "running", True)
        assert found.about["test"] == "test_it"
        assert found.about["machine"].startswith("pc-q35-")
        assert found.spec.machine == found.about["machine"]  # not q35, which is another one with each version


def test_no_machine(tmp_path: Path, launcher: Launcher) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(MachineError, match=f"{path} holds no machine: there is neither manifest.json nor state/"):
            Preserved.load(path, launcher.binary)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: flip(folder / MEMORY), "machine.gz has been changed"),
        (lambda folder: (folder / MEMORY).unlink(), "machine.gz: No such file or directory"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json is not what was written: Expecting"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json is not what was written: list indices"),
        (lambda folder: change(folder, lambda it: it.update(format=99)), "has format 99, this version reads 1"),
        (lambda folder: change(folder, lambda it: it.pop("status")), "manifest.json is not what was written: 'status'"),
        (lambda folder: change(folder, lambda it: it["plan"].update({"$": "Popen"})), "not what was written: 'Popen'"),
        (lambda folder: change(folder, lambda it: it["plan"].pop("accel")), "missing 1 required keyword-only argument"),
        (lambda folder: change(folder, lambda it: it["files"].pop(LOG)), "manifest.json does not have console.log"),
        (lambda folder: change(folder, lambda it: it.update(about=None)), "manifest.json is not what was written"),
        (lambda folder: change(folder, lambda it: it.update(plan=None)), "manifest.json is not what was written"),
        (lambda folder: change(folder, lambda it: it.update(lanes="ab")), "manifest.json is not what was written"),
    ],
)
def test_damage(folder: Path, launcher: Launcher, damage: Callable[[Path], object], said: str) -> None:
    damage(folder)
    with pytest.raises(MachineError, match=re.escape(said)):
        Preserved.load(folder, launcher.binary)


def test_another_qemu(folder: Path, launcher: Launcher) -> None:
    change(folder, lambda it: it["about"].update(qemu="99.0.1", machine="pc-q35-99.0"))
    with pytest.raises(MachineError) as caught:
        Preserved.load(folder, launcher.binary)
    assert str(caught.value) == (
        f"{folder}: the machine was saved by QEMU 99.0.1 and is a pc-q35-99.0; {launcher.binary.path}, version "
        f"{launcher.binary.version_text}, does not know that\n  name a QEMU of that version: --qemu=PATH"
    )


def replace_memory(folder: Path, data: bytes) -> None:
    """Put something else in the memory's place, and say so: as who wrote it may have been interrupted, or lied."""
    (folder / MEMORY).write_bytes(data)
    change(folder, lambda it: it["files"].update({MEMORY: digest(folder / MEMORY)}))


def test_a_memory_that_ends_early(folder: Path, launcher: Launcher) -> None:
    data = (folder / MEMORY).read_bytes()
    replace_memory(folder, data[: len(data) // 2])
    with pytest.raises(MachineError, match=r"machine\.gz: Compressed file ended"):
        launcher.reopen(Preserved.load(folder, launcher.binary))


def test_a_memory_that_qemu_does_not_take(folder: Path, launcher: Launcher) -> None:
    replace_memory(folder, gzip.compress(b"nonsense" * (1 << 20)))
    with pytest.raises(MachineError, match=r"VM 'saved': QEMU did not take the machine in .*") as caught:
        launcher.reopen(Preserved.load(folder, launcher.binary))
    assert "Not a migration stream" in str(caught.value)


def test_a_machine_that_does_not_fit(folder: Path, launcher: Launcher) -> None:
    with closing(Launcher(Settings(limits=Limits(memory=300 << 20)))) as small:
        preserved = Preserved.load(folder, launcher.binary)
        with pytest.raises(BudgetExceeded, match="VM 'saved' takes 384 MiB"):
            small.reopen(preserved)


def test_another_machine(folder: Path, launcher: Launcher) -> None:
    change(folder, lambda it: it["plan"]["spec"].update(memory="128M"))
    with pytest.raises(MachineError, match=r"(?s)QEMU did not take the machine in .*Size mismatch|Length mismatch"):
        launcher.reopen(Preserved.load(folder, launcher.binary))
