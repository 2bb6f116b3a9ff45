"""A full disk is told as one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.room import needing_room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path))
    monkeypatch.setattr("pytest_kvm.host.rundir.tempfile.tempdir", "/var/tmp")
    with pytest.raises(HostError) as caught, needing_room("VM 'vm' cannot be made"):
        raise OSError(number, os.strerror(number), "/var/tmp/file")
    assert str(caught.value) == (
        f"VM 'vm' cannot be made: {os.strerror(number)} (/var/tmp/file)\n"
        f"  make room in TMPDIR (/var/tmp) and PYTEST_KVM_CACHE ({tmp_path}), or set them elsewhere"
    )


def test_other_errors_pass() -> None:
    with pytest.raises(FileNotFoundError), needing_room("VM 'vm' cannot be made"):
        raise FileNotFoundError(errno.ENOENT, "no such file")
