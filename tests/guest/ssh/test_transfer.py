"""Files into a guest and out of it, with OpenSSH's server on loopback, which has no SFTP."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from pytest_kvm.errors import TransferError
from pytest_kvm.guest.ssh.get import _mode_of, _only_changes
from pytest_kvm.guest.ssh.ssh import SSH
from tests.guest.ssh.conftest import Connect, Start

NAMES = [
    "plain",
    "a b",
    "-dash",
    "--",
    "it's",
    'say "x"',
    "new\nline",
    "ünïcødé",
    "$HOME",
    "*",
    "back\\slash",
    "\udcff",
]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def listed(folder: Path) -> dict[str, tuple[str, object]]:
    """Return all that is in a directory: relative name → (permissions, contents or where a link leads)."""
    found: dict[str, tuple[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (stat.filemode(path.lstat().st_mode), what)
    return found


@pytest.fixture
def tree(here: Path) -> Path:
    """A directory with everything that there is."""
    folder = here / "tree"
    for number, name in enumerate(NAMES):
        path = folder / f"sub {number % 3}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    (folder / "empty folder").mkdir()
    (folder / "empty").touch()
    (folder / "run").write_bytes(b"\x7fELF")
    (folder / "run").chmod(0o755)
    (folder / "open").write_bytes(b"all")
    (folder / "open").chmod(0o666)
    (folder / "up").symlink_to("sub 0/plain")
    (folder / "sub 1" / "link").symlink_to("../empty folder")
    (folder / "twin").hardlink_to(folder / "run")
    (folder / ("long" * 60)).write_text("a name of 240 bytes")
    (folder / "sub 2").chmod(0o750)
    return folder


# There and back


def test_names(ssh: SSH, here: Path, there: Path) -> None:
    back = here / "back"
    back.mkdir()
    for name in NAMES:
        (here / name).write_text(repr(name))
        assert ssh.put(here / name, there) == f"{there}/{name}"
        assert ssh.get(there / name, back) == back / name
        assert (back / name).read_text() == repr(name)
    assert sorted(path.name for path in there.iterdir()) == sorted(NAMES)


def test_a_tree(ssh: SSH, tree: Path, there: Path, here: Path) -> None:
    assert ssh.put(tree, there / "copy") == str(there / "copy")
    assert listed(there / "copy") == listed(tree)
    assert mode(there / "copy") == mode(tree)
    assert ssh.get(there / "copy", here / "back") == here / "back"
    assert listed(here / "back") == listed(tree)
    assert mode(here / "back") == mode(tree)
    assert [path.name for path in there.iterdir()] == ["copy"]
    assert sorted(path.name for path in here.iterdir()) == ["back", "tree"]


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_001])
def test_sizes(ssh: SSH, here: Path, there: Path, size: int) -> None:
    data = os.urandom(size)
    (here / "file").write_bytes(data)
    ssh.put(here / "file", there / "file")
    assert (there / "file").read_bytes() == data
    assert ssh.get(there / "file", here / "back").read_bytes() == data


def test_holes(ssh: SSH, here: Path, there: Path) -> None:
    with (here / "file").open("wb") as file:
        file.seek(1_000_000)
        file.write(b"end")
        file.truncate(2_000_000)
    ssh.put(here / "file", there)
    assert (there / "file").read_bytes() == (here / "file").read_bytes()


def test_an_empty_directory(ssh: SSH, here: Path, there: Path) -> None:
    (here / "empty").mkdir()
    ssh.put(here / "empty", there)
    assert list((there / "empty").iterdir()) == []
    ssh.get(there / "empty", here / "back")
    assert list((here / "back").iterdir()) == []


@pytest.mark.parametrize("permitted", [0o644, 0o600, 0o755, 0o444, 0o666, 0o4711])
def test_permissions_are_kept(ssh: SSH, here: Path, there: Path, permitted: int) -> None:
    (here / "file").write_text("x")
    (here / "file").chmod(permitted)
    ssh.put(here / "file", there)
    assert mode(there / "file") == permitted
    assert mode(ssh.get(there / "file", here / "back")) == permitted & 0o777
    ssh.put(here / "file", there, mode=0o751)
    assert mode(there / "file") == 0o751
    assert mode(ssh.get(there / "file", here / "back", mode=0o640)) == 0o640


def test_bytes(ssh: SSH, there: Path) -> None:
    assert ssh.put(b"key = value\n", there / "conf") == str(there / "conf")
    assert ((there / "conf").read_text(), mode(there / "conf")) == ("key = value\n", 0o644)
    ssh.put(b"", there / "conf", mode=0o700)
    assert ((there / "conf").read_text(), mode(there / "conf")) == ("", 0o700)


# Where it goes


def test_a_new_name(ssh: SSH, here: Path, there: Path) -> None:
    (here / "old").write_text("x")
    assert ssh.put(here / "old", there / "new") == str(there / "new")
    assert (there / "new").read_text() == "x"


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_into_a_directory(ssh: SSH, here: Path, there: Path, slash: str) -> None:
    (here / "file").write_text("x")
    assert Path(ssh.put(f"{here}/file", f"{there}{slash}")) == there / "file"
    assert (there / "file").read_text() == "x"
    (here / "back").mkdir()
    assert ssh.get(f"{there}/file", f"{here}/back{slash}") == here / "back" / "file"


def test_a_directory_twice(ssh: SSH, here: Path, there: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "a").write_text("1")
    assert ssh.put(here / "d", there / "d") == f"{there}/d"
    assert ssh.put(here / "d", there / "d") == f"{there}/d/d"  # as cp -r does
    (here / "d" / "a").write_text("2")
    (here / "d" / "b").write_text("2")
    (there / "d" / "c").write_text("stays")
    assert ssh.put(here / "d", there) == f"{there}/d"
    assert {name: content for name, (_, content) in listed(there / "d").items()} == {
        "a": b"2",
        "b": b"2",
        "c": b"stays",
        "d": None,
        "d/a": b"1",
    }
    assert ssh.get(there / "d", here) == here / "d"
    assert (here / "d" / "c").read_text() == "stays"


def test_a_directory_with_a_slash(ssh: SSH, here: Path, there: Path) -> None:
    (here / "d").mkdir()
    assert ssh.put(f"{here}/d/", there) == f"{there}/d"
    assert ssh.get(f"{there}/d/", here / "d") == here / "d" / "d"


@pytest.mark.parametrize("remote", ["rel", "./rel", "~/rel"])
def test_where_the_user_logs_in(sshd: Start, connect: Connect, there: Path, here: Path, remote: str) -> None:
    ssh = connect(sshd(f'ForceCommand cd {there} && eval "$SSH_ORIGINAL_COMMAND"'))
    assert ssh.put(b"x", remote) == remote
    assert (there / "rel").read_text() == "x"
    assert ssh.get(remote, here).read_text() == "x"


def test_a_profile_that_talks(sshd: Start, connect: Connect, here: Path, there: Path) -> None:
    ssh = connect(sshd('ForceCommand echo Welcome; echo Welcome >&2; eval "$SSH_ORIGINAL_COMMAND"'))
    (here / "file").write_text("x")
    assert ssh.put(here / "file", there) == f"{there}/file"
    assert ssh.get(there / "file", here / "back").read_text() == "x"


def test_links_on_the_way(ssh: SSH, here: Path, there: Path) -> None:
    (there / "folder").mkdir()
    (there / "to folder").symlink_to("folder")
    (there / "to file").symlink_to("folder/file")
    (here / "link").symlink_to("file")
    (here / "file").write_text("x")
    ssh.put(here / "link", there / "to folder")
    assert (there / "folder" / "link").read_text() == "x"
    ssh.put(here / "file", there / "to file")  # what the link leads to, as cp does
    assert (there / "to file").is_symlink()
    assert (there / "folder" / "file").read_text() == "x"
    assert not ssh.get(there / "to file", here / "back").is_symlink()
    (here / "to folder").symlink_to(there / "folder")
    assert ssh.put(here / "to folder", there / "copy") == f"{there}/copy"
    assert not (there / "copy").is_symlink()


def test_a_file_in_use_is_replaced(ssh: SSH, there: Path) -> None:
    (there / "file").write_text("old")
    with (there / "file").open() as file:
        ssh.put(b"new", there / "file")
        assert file.read() == "old"
    assert (there / "file").read_text() == "new"


def test_what_is_no_file_is_written_to(ssh: SSH, there: Path) -> None:
    os.mkfifo(there / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((there / "pipe").read_bytes()))
    reader.start()
    assert ssh.put(b"data", there / "pipe") == str(there / "pipe")
    reader.join()
    assert read == [b"data"]
    assert (there / "pipe").is_fifo()


def test_files_that_do_not_know_their_size(ssh: SSH, here: Path) -> None:
    assert ssh.get("/proc/version", here).read_bytes() == Path("/proc/version").read_bytes()
    assert ssh.get("/sys/kernel/mm/transparent_hugepage/enabled", here / "enabled").stat().st_size < 100
    with pytest.raises(TransferError, match="the files of /proc/self can only be copied one by one"):
        ssh.get("/proc/self", here / "self")


# Small print


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("size", "drawn"), [(9_000_000, True), (1_000, False)])
def test_a_bar_for_what_takes_long(  # noqa: PLR0917
    ssh: SSH, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch, size: int, drawn: bool
) -> None:
    (here / "file").write_bytes(bytes(size))
    for action in (lambda: ssh.put(here / "file", there), lambda: ssh.get(there / "file", here / "back")):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        action()
        monkeypatch.undo()
        assert ("%|" in screen.getvalue()) is drawn


@pytest.mark.parametrize(
    ("word", "permitted"),
    [
        (b"-rw-r--r--", 0o644),
        (b"-rwxr-x--x+", 0o751),
        (b"-rwsr-Sr-t", 0o745),
        (b"-rwSr-----", 0o640),
        (b"crw-rw-rw-", 0o666),
        (b"?", 0o644),
    ],
)
def test_what_ls_says(word: bytes, permitted: int) -> None:
    assert _mode_of(word) == permitted


def test_files_that_live() -> None:
    assert _only_changes("tar: ./log: file changed as we read it\ntar: ./x: File removed before we read it\n")
    assert not _only_changes("tar: ./log: file changed as we read it\ntar: ./x: Cannot open: Permission denied\n")
