"""Folders with images, and with what is none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from pytest_kvm import images
from tests.images.disks import make_qcow2
from tests.images.verbs.disks import write


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and with what is none: nothing in it changes."""
    return fill(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the working directory."""
    monkeypatch.chdir(shared)
    return shared


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One like it in which things may change."""
    monkeypatch.chdir(fill(tmp_path))
    return tmp_path


def fill(folder: Path) -> Path:
    with contextlib.chdir(folder):
        _fill(folder)
    return folder


def _fill(folder: Path) -> None:
    write(images.create("disk", "8M"), 7)
    write(images.create("raw", "1M", format="raw"), 7)
    images.create("over", backing="disk", backing_format="qcow2")
    images.create("vmdk", "8M", format="vmdk")
    make_qcow2(folder / "lost", "-u", "-F", "qcow2", "-b", "gone", data=0)
    make_qcow2(folder / "loop", "-u", "-F", "qcow2", "-b", "back", data=0)
    make_qcow2(folder / "back", "-u", "-F", "qcow2", "-b", "loop", data=0)
    make_qcow2(folder / "self", "-u", "-F", "qcow2", "-b", "self", data=0)
    make_qcow2(folder / "remote", "-u", "-F", "raw", "-b", "nbd://127.0.0.1:1/x", data=0)
    Path("text").write_text("no disk at all\n")
    Path("empty").touch()
    Path("page").write_text("<!doctype html>")
    Path("gzip").write_bytes(b"\x1f\x8b" + bytes(600))
    Path("half").write_bytes(Path("disk").read_bytes()[:50])
    os.mkfifo("pipe")
    Path("null").symlink_to("/dev/null")
    Path("folder").mkdir()
