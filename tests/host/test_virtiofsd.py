"""What virtiofsd is asked to do: there are two programs of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host import virtiofsd
from pytest_kvm.host.virtiofsd import Virtiofsd, find_virtiofsd

FOLDER = Path("/data,1")
OLD = Virtiofsd(Path("/d"), modern=False, refuses_writes=False)
MODERN = Virtiofsd(Path("/d"), modern=True, refuses_writes=True)
BETWEEN = Virtiofsd(Path("/d"), modern=True, refuses_writes=False)
READ_ONLY = ["unshare", "--mount", "--propagation", "private", "sh", "-c", virtiofsd._READ_ONLY, "sh", "/data,1"]
OLD_COMMAND = ["/d", "--fd=7", "-o", "source=/data\\,1", "-o", "log_level=warn"]


@pytest.mark.parametrize(
    ("daemon", "uid", "readonly", "command"),
    [
        (OLD, 0, False, OLD_COMMAND),
        (OLD, 0, True, [*READ_ONLY, *OLD_COMMAND]),
        (MODERN, 0, False, ["/d", "--fd=7", "--shared-dir=/data,1", "--sandbox", "namespace"]),
        (MODERN, 1000, True, ["/d", "--fd=7", "--shared-dir=/data,1", "--sandbox", "none", "--readonly"]),
        (BETWEEN, 1000, False, ["/d", "--fd=7", "--shared-dir=/data,1", "--sandbox", "none"]),
        (BETWEEN, 0, True, [*READ_ONLY, "/d", "--fd=7", "--shared-dir=/data,1", "--sandbox", "namespace"]),
    ],
)
def test_command(
    monkeypatch: pytest.MonkeyPatch, daemon: Virtiofsd, uid: int, readonly: bool, command: list[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert daemon.command(FOLDER, 7, readonly=readonly) == command


@pytest.mark.parametrize(
    ("daemon", "readonly", "text"),
    [(OLD, False, "/d needs root"), (OLD, True, "/d needs root"), (BETWEEN, True, "/d has no --readonly")],
)
def test_what_a_plain_user_cannot_have(
    monkeypatch: pytest.MonkeyPatch, daemon: Virtiofsd, readonly: bool, text: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match=text):
        daemon.command(FOLDER, 7, readonly=readonly)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("  -o source=PATH  shared directory tree", (False, False)),
        ("  --shared-dir <SHARED_DIR>\n  --sandbox <SANDBOX>", (True, False)),
        ("  --shared-dir <SHARED_DIR>\n  --readonly", (True, True)),
    ],
)
def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, found: tuple[bool, bool]) -> None:
    program = tmp_path / "bin" / "virtiofsd"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    daemon = find_virtiofsd(tmp_path)
    assert (daemon.path, daemon.modern, daemon.refuses_writes) == (program, *found)


def test_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(virtiofsd, "find", lambda name: None)
    with pytest.raises(HostError, match=r"virtiofsd is not installed\n  install the package virtiofsd"):
        find_virtiofsd(tmp_path)


def test_one_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "virtiofsd"
    program.write_text("#!/no/such/shell\n")
    program.chmod(0o755)
    monkeypatch.setattr(virtiofsd, "find", lambda name: program)
    with pytest.raises(HostError, match="does not say what it can do"):
        find_virtiofsd(tmp_path)
