"""What killed sessions left is removed; what is not provably theirs stays."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.host.kernel import boot_id
from pytest_kvm.host.mounts import filesystem
from pytest_kvm.host.rundir import OWNER, make_run_dir
from pytest_kvm.host.sweep import Left, Swept, sweep, sweep_first
from pytest_kvm.qemu.process import LOG

# What QEMU's own command line looks like to others.
OURS = ("-name", "guest=vm", "-nodefaults", "-mon", "chardev=qmp,mode=control")
MAKE = """
import sys
from pytest_kvm.host.rundir import make_run_dir
made = make_run_dir()
(made.path / "disk0.qcow2").write_bytes(bytes(1 << 20))
print(made.path, flush=True)
sys.stdin.read()
"""
# Once it has its place, it tells, and stays.
STAY = "import os, signal, sys; os.write(int(sys.argv[1]), b'x'); signal.pause()"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for $TMPDIR, for us and for others; short enough for sockets."""
    base = tmp_path / "tmp"
    base.mkdir()
    monkeypatch.setattr("pytest_kvm.host.sweep.run_base", lambda: str(base))
    monkeypatch.setattr("pytest_kvm.host.rundir.run_base", lambda: str(base))
    return base


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def dead(base: Path) -> Path:
    """The directory of a process that was killed."""
    code = MAKE.replace("made =", f"import pytest_kvm.host.rundir as r; r.run_base = lambda: {str(base)!r}; made =")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().decode().strip())
        assert swept() == ([], [(path, f"in use by process {process.pid}")])
        process.kill()
    return path


Settle = Callable[..., int]


@pytest.fixture
def settle(cleanup: ExitStack) -> Settle:
    """Let a process work in a directory, which talks to its log; return a descriptor of it."""

    def start(path: Path, *words: str, says: str | None = LOG) -> int:
        reader, writer = os.pipe()
        with (path / says if says else Path(os.devnull)).open("ab") as log:
            fcntl.flock(log, fcntl.LOCK_SH)
            command = [sys.executable, "-c", STAY, str(writer), *words]
            process = subprocess.Popen(command, cwd=path, stderr=log, pass_fds=[writer])
        os.close(writer)
        cleanup.callback(process.wait)
        cleanup.callback(process.kill)
        with open(reader, "rb") as told:
            assert told.read(1) == b"x"
        descriptor = os.pidfd_open(process.pid)
        cleanup.callback(os.close, descriptor)
        return descriptor

    return start


def pid_of(descriptor: int) -> int:
    return int(Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("Pid:")[1].split()[0])


def ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def swept(*, dry_run: bool = False) -> tuple[list[Path], list[tuple[Path, str]]]:
    result = sweep(dry_run=dry_run)
    return [removed.path for removed in result.removed], [(left.path, left.reason) for left in result.left]


def test_a_dead_owners_directory_is_removed(dead: Path) -> None:
    result = sweep()
    assert [removed.path for removed in result.removed] == [dead]
    assert result.removed[0].size >= 1 << 20
    assert result.left == []
    assert not dead.exists()
    assert sweep() == Swept()


def test_a_dry_run_only_tells(dead: Path) -> None:
    assert swept(dry_run=True) == ([dead], [])
    assert (dead / "disk0.qcow2").exists()
    assert swept() == ([dead], [])


def test_a_living_owners_stays(base: Path) -> None:
    with make_run_dir() as path:
        assert sweep() == Swept(left=[Left(path, f"in use by process {os.getpid()}", used=True)])
        assert path.exists()


def test_nothing_outside_is_removed(dead: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    (dead / "link").symlink_to(treasure)
    (dead / "folder").mkdir()
    (dead / "folder" / "link").symlink_to(treasure)
    assert swept() == ([dead], [])
    assert (treasure / "gold").exists()


def test_a_link_is_no_directory_of_ours(base: Path, dead: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    dead.rename(elsewhere)
    dead.symlink_to(elsewhere)
    assert sweep() == Swept()
    assert (elsewhere / "disk0.qcow2").exists()


def test_an_owner_that_is_a_link_proves_nothing(dead: Path, tmp_path: Path) -> None:
    (dead / OWNER).rename(tmp_path / "owner")
    (dead / OWNER).symlink_to(tmp_path / "owner")
    assert swept() == ([], [(dead, f"{os.strerror(errno.ELOOP)}: {OWNER}")])
    assert (dead / "disk0.qcow2").exists()


@pytest.mark.parametrize("name", ["pytest-kvm-notes", "pytest-kvm-12345678"])
def test_what_nobody_claims_stays(name: str, base: Path) -> None:
    (base / name).mkdir()
    (base / name / "novel.txt").touch()
    assert swept() == ([], [(base / name, "nothing in it says whose it is")] if len(name) == 19 else [])


def test_what_is_none_of_our_business(base: Path) -> None:
    (base / "pytest-kvm-abcdefgh.txt").touch()
    (base / "pytest-kvm-abcdefgh").touch()
    (base / "pytest-of-me").mkdir()
    assert sweep() == Swept()
    assert len(list(base.iterdir())) == 3


@pytest.mark.parametrize("owned", [False, True])
def test_killed_in_the_moment_of_creation(owned: bool, base: Path) -> None:
    path = base / "pytest-kvm-12345678"
    path.mkdir(mode=0o700)
    if owned:
        (path / OWNER).touch()
    assert swept() == ([path], [])
    assert not path.exists()


def test_in_the_moment_of_creation(base: Path) -> None:
    path = base / "pytest-kvm-12345678"
    path.mkdir(mode=0o700)
    with (path / OWNER).open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert swept() == ([], [(path, "in use by somebody")])


def test_an_owner_without_a_lock_may_live(dead: Path) -> None:
    (dead / OWNER).write_bytes(b"")
    assert swept() == ([], [(dead, "its owner was not able to lock it")])


def test_others_could_have_written_to_it(dead: Path) -> None:
    dead.chmod(0o777)
    assert swept() == ([], [(dead, "others may write to it, and could have made what is in it")])


def test_another_users_is_passed_over(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.sweep.os.geteuid", lambda: os.getuid() + 1)
    assert sweep() == Swept()
    assert dead.exists()


@pytest.mark.parametrize(("kind", "stays"), [("ext4", False), ("nfs4", True), ("", True)])
def test_before_another_boot(kind: str, stays: bool, dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = json.loads((dead / OWNER).read_text())
    assert owner["boot"] == boot_id()
    (dead / OWNER).write_text(json.dumps({**owner, "boot": "another"}))
    monkeypatch.setattr("pytest_kvm.host.sweep.filesystem", lambda _: kind)
    why = f"process {owner['pid']} made it on another host, or before this one was booted; that its lock is free"
    removed, left = swept()
    assert removed == ([] if stays else [dead])
    assert [(path, reason.startswith(why)) for path, reason in left] == ([(dead, True)] if stays else [])


def test_the_type_of_a_filesystem() -> None:
    for path in ("/proc", "/sys"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert filesystem(descriptor) == {"/proc": "proc", "/sys": "sysfs"}[path]
        finally:
            os.close(descriptor)


def test_a_qemu_that_survived_is_ended(dead: Path, settle: Settle) -> None:
    process = settle(dead, *OURS)
    pid = pid_of(process)
    assert [removed.ended for removed in sweep(dry_run=True).removed] == [(pid,)]
    assert not ended(process)
    assert [removed.ended for removed in sweep().removed] == [(pid,)]
    assert ended(process)
    assert not dead.exists()


@pytest.mark.parametrize(
    ("words", "says"), [((), LOG), (OURS[:3], LOG), (OURS, None)], ids=["a tool", "not ours", "another's log"]
)
def test_a_process_that_is_not_provably_ours_goes_on(
    words: tuple[str, ...], says: str | None, dead: Path, settle: Settle
) -> None:
    (dead / LOG).touch()
    process = settle(dead, *words, says=says)
    reason = f"process {pid_of(process)} works in it, and is not certainly a QEMU of ours"
    for dry_run in (True, False):
        removed, left = swept(dry_run=dry_run)
        assert removed == []
        assert [(path, why.startswith(reason)) for path, why in left] == [(dead, True)]
    assert not ended(process)
    assert (dead / "disk0.qcow2").exists()


def test_someone_works_there_without_a_log(dead: Path, settle: Settle) -> None:
    process = settle(dead, says=None)
    assert swept() == ([], [(dead, f"process {pid_of(process)} works in it")])
    assert not ended(process)


def test_a_living_owners_qemu_goes_on(base: Path, settle: Settle) -> None:
    with make_run_dir() as path:
        process = settle(path, *OURS)
        assert sweep().removed == []
        assert not ended(process)


def test_a_qemu_that_cannot_be_seen(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As that of another container, which shares the directory.
    with (dead / LOG).open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_SH)
        reason = "something writes to its log that cannot be seen from here, as in a container"
        assert swept() == ([], [(dead, reason)])
    assert swept() == ([dead], [])


def test_what_cannot_be_removed_is_told(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise PermissionError(1, "Operation not permitted", "disk0.qcow2")

    monkeypatch.setattr("pytest_kvm.host.sweep.empty", refuse)
    assert swept() == ([], [(dead, "Operation not permitted: disk0.qcow2")])


def test_before_the_first_machine(dead: Path, settle: Settle) -> None:
    settle(dead, *OURS)
    said: list[str] = []
    sweep_first(said.append)
    assert said == ["1 directory that a killed session left removed (1 MiB, with 1 QEMU process)"]
    sweep_first(said.append)
    assert len(said) == 1


def test_no_place_to_look(base: Path) -> None:
    base.rmdir()
    with pytest.raises(HostError, match="cannot look into"):
        sweep()
    said: list[str] = []
    sweep_first(said.append)
    assert said == []


def test_several_at_once(base: Path, dead: Path) -> None:
    # Whoever comes second finds nothing, or what is in use.
    code = (
        f"import pytest_kvm.host.sweep as s; s.run_base = lambda: {str(base)!r}\n"
        "input(); swept = s.sweep(); print(len(swept.removed), [left for left in swept.left if not left.used])"
    )
    with ExitStack() as stack:
        sweepers = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(3)
        ]
        for sweeper in sweepers:
            assert sweeper.stdin is not None
            sweeper.stdin.write("\n")
            sweeper.stdin.flush()
        said = sorted(sweeper.communicate(timeout=60)[0] for sweeper in sweepers)
    assert said == ["0 []\n", "0 []\n", "1 []\n"]
    assert not dead.exists()
