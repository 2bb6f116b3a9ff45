"""Disk images of folders, read back with debugfs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.images import folder as folder_module
from pytest_kvm.images.folder import identity, make_image

LONG = "x" * 200


def ask(image: Path, request: str) -> str:
    program = "/usr/sbin/debugfs"
    return subprocess.run([program, "-R", request, image], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "below" / "deep").mkdir(parents=True)
    (made / "file").write_text("text\n")
    (made / "file").chmod(0o640)
    (made / "below" / "deep" / LONG).write_bytes(b"")
    (made / "link").symlink_to("below/deep")
    (made / "away").symlink_to("/no/such/place")
    (made / "below" / "same").hardlink_to(made / "file")
    os.mkfifo(made / "pipe")
    with (made / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    return made


def test_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_image(folder, image)
    assert ask(image, "cat /file") == "text\n"
    assert LONG in ask(image, "ls /below/deep")
    assert 'Fast link dest: "below/deep"' in ask(image, "stat /link")
    assert "Mode:  0640" in ask(image, "stat /file")
    assert "Links: 2" in ask(image, "stat /file")
    assert "Type: FIFO" in ask(image, "stat /pipe")
    assert "Size: 67108864" in ask(image, "stat /sparse")
    assert image.stat().st_blocks * 512 < 8 << 20


def test_many_files_and_none(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make_image(folder, tmp_path / "empty")
    assert "lost+found" in ask(tmp_path / "empty", "ls /")
    for number in range(2000):
        (folder / f"a name that is as long as names are, number {number}").write_text(str(number))
    make_image(folder, tmp_path / "image")
    assert ask(tmp_path / "image", "ls -p /").count("a name that") == 2000


def test_it_is_another_one_when_something_changes(folder: Path) -> None:
    known = {identity(folder)}
    assert identity(folder) in known
    for change in (
        lambda: (folder / "file").write_text("other\n"),
        lambda: (folder / "file").chmod(0o600),
        (folder / "below" / "new").touch,
        (folder / "link").unlink,
    ):
        change()
        assert identity(folder) not in known
        known.add(identity(folder))


def test_what_cannot_be_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    with pytest.raises(HostError, match=r"no image can be made of .*gone: No such file or directory"):
        make_image(tmp_path / "gone", image)
    with pytest.raises(HostError, match="No such file or directory"):
        make_image(folder, tmp_path / "no" / "image")
    monkeypatch.setattr(folder_module, "_SLACK", 0.0)
    monkeypatch.setattr(folder_module, "_LEAST", 2 << 20)
    (folder / "large").write_bytes(os.urandom(4 << 20))
    with pytest.raises(HostError, match=r"no image can be made of .*folder: "):
        make_image(folder, image)
    monkeypatch.setattr(folder_module, "find", lambda name, folders: None)
    with pytest.raises(HostError, match=r"mke2fs is not installed\n  install the package e2fsprogs"):
        make_image(folder, image)
    assert not image.exists()
