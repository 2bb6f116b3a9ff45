"""Private directories of machines."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.rundir import OWNER, Owner, make_run_dir
from pytest_kvm.qemu.sockets import Listener


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for $TMPDIR; tempfile reads that once."""
    monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_private_and_fresh(base: Path) -> None:
    first, second = make_run_dir().path, make_run_dir().path
    assert first != second
    assert first.parent == second.parent == base
    assert first.name.startswith("pytest-kvm-")
    assert stat.S_IMODE(first.stat().st_mode) == 0o700


@pytest.mark.parametrize("length", [40, 74, 75, 90, 200])
def test_a_socket_always_fits(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack) -> None:
    # Under /tmp itself: pytest's own folder is too deep for the shorter ones.
    home = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp"))
    deep = Path(home) / ("x" * (length - len(home) - 1))
    deep.mkdir()
    monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", str(deep))
    made = make_run_dir()
    cleanup.callback(made.remove)
    assert made.path.parent == (deep if length <= 74 else Path("/tmp"))
    Listener(made.path / "control.sock").close()


def test_where_none_can_be_made(base: Path) -> None:
    base.rmdir()
    with pytest.raises(HostError) as caught:
        make_run_dir()
    # The words of a short path; a deep one would have been replaced.
    assert str(caught.value).splitlines()[1] == "  set TMPDIR to one that you may write"


def test_removed_with_all_that_is_in_it(base: Path) -> None:
    made = make_run_dir()
    (made.path / "sub").mkdir()
    (made.path / "sub" / "disk.raw").write_text("x")
    (made.path / "outside").symlink_to(Path(__file__).parent)
    Listener(made.path / "qmp").close()
    made.remove()
    assert list(base.iterdir()) == []
    assert Path(__file__).exists()
    made.remove()


def test_as_a_context(base: Path) -> None:
    with make_run_dir() as path:
        assert path.is_dir()
    assert list(base.iterdir()) == []


def test_it_says_whose_it_is_and_is_locked_until_it_is_removed(base: Path) -> None:
    began = time.time()
    made = make_run_dir()
    owner = Owner.read((made.path / OWNER).read_bytes())
    assert owner is not None
    assert owner.pid == os.getpid()
    assert owner.boot == boot_id()
    assert began <= owner.made <= time.time()
    with (made.path / OWNER).open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.remove()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_removed_is_told_and_is_nobodys(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run_dir()
    (made.path / "disk.raw").touch()
    with monkeypatch.context() as patched:
        patched.setattr("pytest_kvm.host.rundir.os.unlink", failing)
        with pytest.raises(PermissionError):
            made.remove()
    with (made.path / OWNER).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_whose_it_is_can_be_read_to_the_last(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever is killed while he removes it leaves what others may remove.
    made = make_run_dir()
    for number in range(20):
        (made.path / f"{number}.log").touch()
    removed: list[str] = []
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        real(name, dir_fd=dir_fd)
        removed.append(name)

    monkeypatch.setattr("pytest_kvm.host.rundir.os.unlink", unlink)
    made.remove()
    assert len(removed) == 21
    assert removed[-1] == OWNER


def failing(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("swept", ["before it has an owner", "before it is locked", "while it is being locked"])
def test_somebody_sweeps_in_the_moment_of_creation(swept: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed: list[Path] = []
    real_open, real_lock = os.open, fcntl.flock

    def open_(path: Path, flags: int, mode: int = 0o777) -> int:
        if not disturbed and swept == "before it has an owner":
            disturbed.append(path.parent)
            path.parent.rmdir()
        return real_open(path, flags, mode)

    def lock(descriptor: int, how: int) -> None:
        if not disturbed and swept != "before it has an owner":
            owner = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            disturbed.append(owner.parent)
            if swept == "while it is being locked":
                raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
            owner.unlink()
            owner.parent.rmdir()
        real_lock(descriptor, how)

    monkeypatch.setattr("pytest_kvm.host.rundir.os.open", open_)
    monkeypatch.setattr("pytest_kvm.host.rundir.fcntl.flock", lock)
    made = make_run_dir()
    assert len(disturbed) == 1
    assert made.path not in disturbed
    assert Owner.read((made.path / OWNER).read_bytes()) is not None


def test_where_nothing_can_be_locked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("pytest_kvm.host.rundir.fcntl.flock", refuse)
    made = make_run_dir()
    assert (made.path / OWNER).read_bytes() == b""
    made.remove()
    assert list(base.iterdir()) == []


def test_without_room(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pytest_kvm.host.rundir.os.write", full)
    with pytest.raises(HostError) as caught:
        make_run_dir()
    assert str(caught.value).splitlines()[1] == "  set TMPDIR to one with more room"
    assert "No space left on device" in str(caught.value)
    assert list(base.iterdir()) == []
