"""Private directories of machines."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.rundir import make_run_dir, remove_run_dir
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
    first, second = make_run_dir(), make_run_dir()
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
    cleanup.callback(remove_run_dir, made)
    assert made.parent == (deep if length <= 74 else Path("/tmp"))
    Listener(made / "control.sock").close()


def test_where_none_can_be_made(base: Path) -> None:
    base.rmdir()
    with pytest.raises(HostError) as caught:
        make_run_dir()
    # The words of a short path; a deep one would have been replaced.
    assert str(caught.value).splitlines()[1] == "  set TMPDIR to one that you may write"


def test_removed_with_all_that_is_in_it(base: Path) -> None:
    made = make_run_dir()
    (made / "sub").mkdir()
    (made / "sub" / "disk.raw").write_text("x")
    Listener(made / "qmp").close()
    remove_run_dir(made)
    assert list(base.iterdir()) == []
    remove_run_dir(made)
