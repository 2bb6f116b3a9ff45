"""Where the cache is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.cache import CACHE_VARIABLE, cache_dir


def test_the_variable_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    assert cache_dir() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_relative_name_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, "cache")
    assert cache_dir() == tmp_path / "cache"


@pytest.mark.parametrize("named", [None, ""])
def test_else_it_is_the_users(named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if named is None:
        monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(CACHE_VARIABLE, named)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "pytest-kvm"
    assert (tmp_path / "pytest-kvm").is_dir()


def test_one_that_is_there_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_dir() == tmp_path
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize(("name", "reason"), [("file", "File exists"), ("file/cache", "Not a directory")])
def test_one_that_cannot_be_made(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / name))
    with pytest.raises(HostError) as caught:
        cache_dir()
    assert str(caught.value).splitlines() == [
        f"cannot make the cache directory {tmp_path / name}: {reason}",
        "  set PYTEST_KVM_CACHE to a directory that you may write",
    ]
