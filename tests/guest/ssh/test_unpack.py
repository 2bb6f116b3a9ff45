"""Archives that a guest makes, honest and others."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm.guest.ssh.unpack import Refused, move_in, permissions, unpack


def archive(*members: tarfile.TarInfo, end: bool = True) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return file.getvalue() if end else file.getvalue()[:512]


def member(name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    info.mode = mode
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


def unpacked(tmp_path: Path, *members: tarfile.TarInfo) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack(io.BytesIO(archive(*members)).read, folder)
    return folder


LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def test_an_honest_archive(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    modes = unpack(
        io.BytesIO(
            archive(
                member(".", FOLDER, mode=0o755),
                member("./sub", FOLDER, mode=0o555),
                member("./sub/file", mode=0o4711),
                member("./sub/up", LINK, target="../other"),
                member("./other", HARD, target="./sub/file"),
                member("./sub/again", HARD, target="./sub/up"),
                member("./loop", LINK, target="loop"),
                member("./secret", mode=0),
            )
        ).read,
        folder,
    )
    assert modes == {".": 0o755, "sub": 0o555}
    assert (folder / "sub/file").samefile(folder / "other")
    assert (folder / "sub/up").read_bytes() == b"xxx"
    assert os.readlink(folder / "sub/again") == "../other"
    assert (folder / "sub/file").stat().st_mode & 0o7777 == 0o711
    assert (folder / "secret").stat().st_mode & 0o7777 == 0o400


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("/etc/passwd")], "'/etc/passwd' leads out of it"),
        ([member("../file")], "'../file' leads out of it"),
        ([member("a/../../file")], "'a/../../file' leads out of it"),
        ([member("..", FOLDER)], "'..' leads out of it"),
        ([member("link", LINK, target="/etc")], "'link' is a link to '/etc', which leads out of it"),
        ([member("link", LINK, target="..")], "'link' is a link to '..', which leads out of it"),
        ([member("l", LINK, target="../folder2")], "'l' is a link to '../folder2', which leads out of it"),
        (
            [member("x", LINK, target="."), member("y", LINK, target="x/x/../../passwd")],
            "'y' is a link to 'x/x/../../passwd', which leads out of it",
        ),
        ([member("hard", HARD, target="/etc/passwd")], "'hard' leads out of it"),
        ([member("hard", HARD, target="../../passwd")], "'hard' leads out of it"),
        ([member("hard", HARD, target="gone")], "'hard' is another name of 'gone', which is not there"),
        ([member("null", tarfile.CHRTYPE)], "'null' is a device, or a pipe"),
        ([member("pipe", tarfile.FIFOTYPE)], "'pipe' is a device, or a pipe"),
    ],
)
def test_what_gets_out_of_the_directory(tmp_path: Path, members: list[tarfile.TarInfo], said: str) -> None:
    (tmp_path / "passwd").touch()
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, *members)
    assert str(caught.value) == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "passwd"]
    assert (tmp_path / "passwd").read_bytes() == b""


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises((Refused, OSError)):
        unpacked(tmp_path, member("link", LINK, target="../outside"), member("link/file"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'file' is there twice"):
        unpacked(tmp_path, member("file"), member("file"))


@pytest.mark.parametrize("cut", [0, 100, 700])
def test_half_an_archive(tmp_path: Path, cut: int) -> None:
    data = archive(member("file"))[:cut]
    with pytest.raises(tarfile.TarError):
        unpack(io.BytesIO(data).read, tmp_path)


def test_permissions() -> None:
    assert (permissions(0o4755), permissions(0o100644), permissions(0)) == (0o755, 0o644, 0o400)


def tree(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_moving_into_a_directory_that_is_there(tmp_path: Path) -> None:
    old = tree(tmp_path / "old", a="old", b="old", sub__c="old")
    new = tree(tmp_path / "new", a="new", sub__d="new", more__e="new")
    move_in(new, old)
    assert {str(path.relative_to(old)): path.read_text() for path in old.rglob("*") if path.is_file()} == {
        "a": "new",
        "b": "old",
        "sub/c": "old",
        "sub/d": "new",
        "more/e": "new",
    }


def link_to_outside(path: Path) -> None:
    path.symlink_to(path.parent.parent / "outside")


@pytest.mark.parametrize(
    ("in_the_way", "new", "error"),
    [
        (lambda path: path.write_text("file"), {"name__a": "new"}, NotADirectoryError),
        (link_to_outside, {"name__a": "new"}, NotADirectoryError),
        (lambda path: path.mkdir(), {"name": "new"}, IsADirectoryError),
    ],
)
def test_what_is_in_the_way(
    tmp_path: Path, in_the_way: Callable[[Path], None], new: dict[str, str], error: type[OSError]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "old").mkdir()
    in_the_way(tmp_path / "old" / "name")
    with pytest.raises(error, match=r"in the way"):
        move_in(tree(tmp_path / "new", **new), tmp_path / "old")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_is_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("old")
    (tmp_path / "old").mkdir()
    link_to_outside(tmp_path / "old" / "name")
    move_in(tree(tmp_path / "new", name="new"), tmp_path / "old")
    assert (tmp_path / "old" / "name").read_text() == "new"
    assert (tmp_path / "outside").read_text() == "old"
