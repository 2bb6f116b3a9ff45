"""A saved machine is what it was when it was saved, or it is damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm.machine.state import DEVICES, MANIFEST, RAM, TRANSCRIPT, Damaged, State
from tests.machine.states import GUEST, fill


def overwrite(path: Path, data: bytes, *, unnoticed: bool = False) -> None:
    times = path.stat()
    path.chmod(0o600)
    path.write_bytes(data)
    if unnoticed:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def change_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    overwrite(folder / MANIFEST, json.dumps(manifest).encode())


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    fill(tmp_path)
    state = State.load(tmp_path)
    assert state.guest == GUEST
    state.check()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o400}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": lambda folder: overwrite(folder / MANIFEST, (folder / MANIFEST).read_bytes()[:50]),
    "a manifest without its guest": lambda folder: change_manifest(folder, guest={}),
    "a manifest of another shape": lambda folder: change_manifest(folder, files=[]),
    "a list": lambda folder: overwrite(folder / MANIFEST, b"[]"),
    "another format": lambda folder: change_manifest(folder, format=0),
    "a folder in place of RAM": lambda folder: replace_by_folder(folder / RAM),
    "another size in the manifest": lambda folder: change_manifest(folder, files={RAM: [3, 0]}),
    "no RAM": lambda folder: (folder / RAM).unlink(),
    "RAM of another size": lambda folder: overwrite(folder / RAM, b"ra", unnoticed=True),
    "RAM of another time": lambda folder: overwrite(folder / RAM, b"RAM"),
    "truncated devices": lambda folder: overwrite(folder / DEVICES, b"devi", unnoticed=True),
    "other devices": lambda folder: overwrite(folder / DEVICES, b"DEVICES", unnoticed=True),
    "another transcript": lambda folder: overwrite(folder / TRANSCRIPT, b"LOGIN: ", unnoticed=True),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    fill(tmp_path)
    damage(tmp_path)
    with pytest.raises(Damaged, match=str(tmp_path)):
        State.load(tmp_path)


def test_damage_that_comes_later(tmp_path: Path) -> None:
    fill(tmp_path)
    state = State.load(tmp_path)
    overwrite(tmp_path / RAM, b"")
    with pytest.raises(Damaged, match="ram has been changed"):
        state.check()
