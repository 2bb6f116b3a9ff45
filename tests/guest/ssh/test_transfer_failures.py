"""Transfers that do not succeed, and what remains of them: nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from pytest_kvm.errors import SSHError, TransferError, WaitTimeout
from pytest_kvm.guest.ssh import transfer
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.ssh.conftest import Connect, Start
from tests.guest.ssh.sshd import Daemon

# What goes wrong in the guest


def told(ssh: SSH, action: Callable[[], object]) -> str:
    with pytest.raises(TransferError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(ssh.via, "VIA")


def test_refusals_of_put(ssh: SSH, here: Path, there: Path) -> None:
    (here / "file").write_text("x")
    (here / "folder").mkdir()
    (there / "file").touch()
    (there / "full").mkdir()
    (there / "full" / "file").mkdir()
    for local, remote, reason in (
        (here / "file", "/nowhere/file", "there is no directory /nowhere/"),
        (here / "file", f"{there}/new/", f"there is no directory {there}/new/"),
        (here / "file", f"{there}/file/", f"there is no directory {there}/file/"),
        (here / "file", f"{there}/full", f"{there}/full/file is a directory"),
        (here / "folder", "/nowhere/new", "there is no directory /nowhere/"),
        (here / "folder", f"{there}/file", f"{there}/file is not a directory"),
    ):
        text = told(ssh, lambda local=local, remote=remote: ssh.put(local, remote))  # type: ignore[misc]
        assert text == f"VM 'vm': cannot put {str(local)!r} to {remote!r} (VIA): {reason}"
    assert told(ssh, lambda: ssh.put(b"xy", there)) == (
        f"VM 'vm': cannot put 2 bytes to {str(there)!r} (VIA): {there} is a directory"
    )
    assert "No such file or directory" in told(ssh, lambda: ssh.put(b"x", "/proc/new"))
    assert {str(path.relative_to(there)) for path in there.rglob("*")} == {"file", "full", "full/file"}


def test_no_room_left(ssh: SSH, there: Path) -> None:
    (there / "full").symlink_to("/dev/full")
    with pytest.raises(TransferError, match="No space left on device") as caught:
        ssh.put(bytes(30_000_000), there / "full")
    assert caught.value.remote == str(there / "full")
    assert "No space left on device" in caught.value.stderr


def test_refusals_of_get(ssh: SSH, here: Path, there: Path) -> None:
    assert told(ssh, lambda: ssh.get("/nowhere", here)) == (
        f"VM 'vm': cannot get '/nowhere' to {str(here)!r} (VIA): there is no /nowhere"
    )
    (there / "evil").mkdir()
    (there / "evil" / "etc").symlink_to("/etc")
    assert told(ssh, lambda: ssh.get(there / "evil", here)).endswith(
        "(VIA): 'etc' is a link to '/etc', which leads out of it, and is not copied; get what you need of it by name"
    )
    (there / "evil" / "etc").unlink()
    os.mkfifo(there / "evil" / "pipe")
    assert "'./pipe' is a device, or a pipe" in told(ssh, lambda: ssh.get(there / "evil", here))
    assert list(here.iterdir()) == []


def test_a_guest_without_tar(sshd: Start, connect: Connect, here: Path, there: Path) -> None:
    ssh = connect(sshd("SetEnv PATH=/nowhere"))
    (there / "folder").mkdir()
    assert "tar: not found" in told(ssh, lambda: ssh.get(there / "folder", here)).replace("command ", "")


# What is wrong here


def test_our_own_mistakes(ssh: SSH, server: Daemon, here: Path) -> None:
    (here / "file").touch()
    (here / "folder").mkdir()
    os.mkfifo(here / "pipe")
    with pytest.raises(FileNotFoundError):
        ssh.put(here / "missing", "/tmp")
    with pytest.raises(OSError, match="neither a file nor a directory"):
        ssh.put(here / "pipe", "/tmp")
    with pytest.raises(ValueError, match=r"^mode=0o755 is for a file; '.*/folder' is a directory, whose files keep"):
        ssh.put(here / "folder", "/tmp", mode=0o755)
    with pytest.raises(ValueError, match=r"^'' is no path in the guest$"):
        ssh.put(here / "file", "")
    with pytest.raises(ValueError, match=r"is no path in the guest$"):
        ssh.get("/etc/\0", here)
    with pytest.raises(FileNotFoundError, match="there is no such directory: '/nowhere'"):
        ssh.get("/etc/passwd", "/nowhere/passwd")
    with pytest.raises(FileNotFoundError, match=r"there is no such directory: '.*/new/'"):
        ssh.get("/etc/passwd", f"{here}/new/")
    with pytest.raises(
        ValueError, match=r"^'/' does not say what it is to be called in '.*'; give its full name there"
    ):
        ssh.get("/", here)
    assert server.accepted == 0


def test_what_is_in_the_way_here(ssh: SSH, here: Path, there: Path) -> None:
    (there / "file").touch()
    (there / "folder").mkdir()
    (here / "file").mkdir()
    (here / "folder").touch()
    with pytest.raises(IsADirectoryError):
        ssh.get(there / "file", here)
    with pytest.raises(NotADirectoryError):
        ssh.get(there / "folder", here)
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder"]


@pytest.fixture
def midway(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something when a million bytes have been copied."""

    def plan(action: Callable[[], object]) -> None:
        advance = transfer.Progress.advance
        actions = [action]

        def spy(self: transfer.Progress, size: int) -> None:
            advance(self, size)
            if self.done > 1_000_000 and actions:
                actions.pop()()

        monkeypatch.setattr(transfer.Progress, "advance", spy)

    return plan


def gone(folder: Path, names: set[str]) -> bool:
    """Wait until the guest has cleared away what it did not get all of."""
    deadline = Deadline(10)
    watch = Watch()
    while {path.name for path in folder.iterdir()} != names and not deadline.expired:
        watch.wait_only(lambda: False, Deadline(0.02))
    return {path.name for path in folder.iterdir()} == names


Midway = Callable[[Callable[[], object]], None]


def test_a_file_that_shrinks_while_it_is_read(ssh: SSH, here: Path, there: Path, midway: Midway) -> None:
    (here / "file").write_bytes(bytes(5_000_000))
    midway(lambda: os.truncate(here / "file", 0))
    with pytest.raises(OSError, match="became shorter while it was read") as caught:
        ssh.put(here / "file", there)
    assert caught.value.errno == errno.EIO
    assert gone(there, set())


def test_no_room_left_here(ssh: SSH, here: Path, there: Path, midway: Midway) -> None:
    (there / "file").write_bytes(bytes(5_000_000))

    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    midway(fill)
    with pytest.raises(OSError, match="No space left on device"):
        ssh.get(there / "file", here)
    assert list(here.iterdir()) == []
    assert ssh.run("echo usable").stdout == "usable\n"


# What ends in the middle


def test_put_that_breaks_off(ssh: SSH, server: Daemon, here: Path, there: Path, midway: Midway) -> None:
    (here / "file").write_bytes(bytes(40_000_000))
    (there / "file").write_text("old")
    midway(server.break_off)
    with pytest.raises(
        SSHError, match=r"^VM 'vm': SSH connection lost under put of '.*' to '.*', after \d\.\d s: the g"
    ):
        ssh.put(here / "file", there)
    assert gone(there, {"file"})
    assert (there / "file").read_text() == "old"


def test_a_tree_that_breaks_off(ssh: SSH, server: Daemon, here: Path, there: Path, midway: Midway) -> None:
    (here / "tree").mkdir()
    for number in range(20):
        (here / "tree" / str(number)).write_bytes(bytes(2_000_000))
    midway(server.break_off)
    with pytest.raises(SSHError, match="lost under put"):
        ssh.put(here / "tree", there)
    assert gone(there, set())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_get_that_breaks_off(  # noqa: PLR0917
    ssh: SSH, server: Daemon, here: Path, there: Path, midway: Midway, kind: str
) -> None:
    (there / "folder").mkdir()
    (there / "folder" / "big").write_bytes(bytes(40_000_000))
    (there / "file").hardlink_to(there / "folder" / "big")
    midway(server.break_off)
    with pytest.raises(SSHError, match="SSH connection lost under get of"):
        ssh.get(there / kind, here)
    assert list(here.iterdir()) == []


def test_news_of_the_machine_end_a_transfer(ssh: SSH, watch: Watch, here: Path, there: Path, midway: Midway) -> None:
    os.mkfifo(there / "pipe")  # nobody reads from it: all buffers fill, and the sender waits

    class Off(Exception):
        pass

    keeper = os.open(there / "pipe", os.O_RDWR)
    midway(lambda: watch.fail(lambda: Off("it went off")))
    started = monotonic()
    with pytest.raises(Off):
        ssh.put(bytes(50_000_000), there / "pipe", timeout=None)
    os.close(keeper)
    assert monotonic() - started < 10


def test_put_that_takes_too_long(ssh: SSH, there: Path) -> None:
    os.mkfifo(there / "pipe")
    keeper = os.open(there / "pipe", os.O_RDWR)
    with pytest.raises(WaitTimeout) as caught:
        ssh.put(bytes(9_000_000), there / "pipe", timeout=0.5)
    os.close(keeper)
    text = str(caught.value)
    assert text.startswith(
        f"VM 'vm': put of 9000000 bytes to {str(there / 'pipe')!r} did not end within 0.5 s ({ssh.via}); "
    )
    assert text.endswith(" of 9000000 bytes had been copied")
    assert caught.value.timeout == 0.5
    assert ssh.run("echo usable").stdout == "usable\n"


def test_get_that_takes_too_long(ssh: SSH, here: Path, there: Path) -> None:
    os.mkfifo(there / "pipe")
    with pytest.raises(WaitTimeout, match=r"did not end within 0\.5 s \(.*\); 0 bytes had been copied$"):
        ssh.get(there / "pipe", here, timeout=0.5)
    assert list(here.iterdir()) == []
    with pytest.raises(OSError, match="No such device or address"):  # nobody waits to read it
        os.open(there / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    assert ssh.run("echo usable").stdout == "usable\n"


def test_a_device_that_never_ends(ssh: SSH, here: Path) -> None:
    with pytest.raises(TransferError, match=r"/dev/zero is a device, and may never end$"):
        ssh.get("/dev/zero", here)
    assert list(here.iterdir()) == []


def test_an_idle_connection_that_died(ssh: SSH, server: Daemon, there: Path) -> None:
    ssh.run("true")
    server.break_off()
    ssh.put(b"x", there / "file")
    assert (there / "file").read_text() == "x"
    assert server.accepted == 2
