"""Which packages, of which distribution, from which archive."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin.apt import AptSource, choose_archive
from pytest_kvm.images.builtin.distribution import debian, distribution_for, known_suites, ubuntu
from pytest_kvm.images.builtin.packages import PackageIndex, UnknownPackage

INDEX = """\
Package: meta
Version: 6.12-1
Architecture: amd64
Depends: linux-image-6.12 (= 6.12-1)
Filename: pool/meta.deb
Size: 1
SHA256: aa

Package: linux-image-6.12
Version: 6.12-1
Architecture: amd64
Pre-Depends: linux-base:any (>= 4)
Depends: kmod | busybox, linux-modules-6.12,
 linux-binary-6.12 [amd64]
Filename: pool/image.deb
Size: 22
SHA256: bb
Description: a kernel
 Package: not-this-one

Package: linux-modules-6.12
Version: 6.12-1
Architecture: amd64
Filename: pool/modules.deb
Size: 3
SHA256: cc
"""
SECOND = """\
Package: signed-binary
Version: 1
Architecture: amd64
Provides: linux-binary, linux-binary-6.12 (= 1)
Filename: pool/binary.deb
Size: 4
SHA256: dd
"""


def test_index() -> None:
    index = PackageIndex([INDEX, SECOND])
    image = index.find("linux-image-6.12")
    assert (image.version, image.filename, image.size, image.sha256) == ("6.12-1", "pool/image.deb", 22, "bb")
    assert image.depends == ("linux-base", "kmod", "linux-modules-6.12", "linux-binary-6.12")
    assert index.find("meta").size == 1
    assert index.find("linux-binary-6.12").name == "signed-binary"
    for unknown in ("not-this-one", "linux-image", "binary"):
        with pytest.raises(UnknownPackage):
            index.find(unknown)
    with pytest.raises(ValueError, match="no field Version"):
        PackageIndex(["Package: x\n"]).find("x")


def test_resolving() -> None:
    index = PackageIndex([INDEX, SECOND])
    found = index.resolve(["meta"], lambda name: name.startswith("linux-") and name != "linux-base")
    assert [package.name for package in found] == ["linux-image-6.12", "linux-modules-6.12", "meta", "signed-binary"]
    with pytest.raises(UnknownPackage, match=r"kmod|linux-base"):
        index.resolve(["meta"], lambda _name: True)


@pytest.mark.parametrize(
    ("release", "suite", "expected"),
    [
        ({}, None, ("Debian", "trixie")),
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, None, ("Debian", "trixie")),
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, "sid", ("Debian", "sid")),
        ({"ID": "ubuntu", "VERSION_CODENAME": "noble"}, None, ("Ubuntu", "noble")),
        ({"ID": "ubuntu", "VERSION_CODENAME": "noble"}, "noble", ("Ubuntu", "noble")),
        (
            {"ID": "mint", "ID_LIKE": "ubuntu debian", "VERSION_CODENAME": "x", "UBUNTU_CODENAME": "noble"},
            None,
            ("Ubuntu", "noble"),
        ),
        ({"ID": "fedora"}, None, ("Debian", "trixie")),
    ],
)
def test_distribution(release: Mapping[str, str], suite: str | None, expected: tuple[str, str]) -> None:
    distribution, meant = distribution_for(suite, release=release, archive=None)
    assert (distribution.origin, meant) == expected


def test_debian_on_ubuntu() -> None:
    noble = {"ID": "ubuntu", "VERSION_CODENAME": "noble", "UBUNTU_CODENAME": "noble"}
    with pytest.raises(ImageUnavailable, match=r"'tiny:sid' is made from Debian's packages, but .* Ubuntu's"):
        distribution_for("sid", release=noble, archive=None)
    distribution, suite = distribution_for("sid", release=noble, archive="http://localhost/debian")
    assert (distribution.origin, suite) == ("Debian", "sid")
    assert known_suites(noble) == [*debian().suites, "noble"]


def test_the_hosts_archive() -> None:
    targets = "\n".join(
        [
            "http://one/debian-security/ main bookworm-security",
            "cdrom:[Debian]/ main bookworm",
            "http://two/debian/ contrib bookworm",
            "http://three/other/ main nodistro",
            "http://four/debian/ main bookworm",
            "http://five/ubuntu/ main noble",
        ]
    )
    assert choose_archive(targets, debian()) == "http://four/debian/"
    assert choose_archive(targets, ubuntu("noble")) == "http://five/ubuntu/"
    assert choose_archive(targets, ubuntu("plucky")) is None
    assert choose_archive("", debian()) is None


def _fake_apt(directory: Path, script: str) -> str:
    path = directory / "bin" / "apt-get"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{path.parent}:{os.environ['PATH']}"


def test_what_apt_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    script = """case "$*" in
    *update*) echo "W: slow" >&2; echo "E: The repository is not signed." >&2; exit 100 ;;
    *) echo "http://four/debian/ main bookworm" ;;
    esac"""
    monkeypatch.setenv("PATH", _fake_apt(tmp_path, script))
    source = AptSource(debian(), tmp_path / "apt", keyring=str(keyring))
    with pytest.raises(ImageUnavailable, match="apt cannot fetch the package index of sid: The repository is not"):
        source.index("sid")
    written = (tmp_path / "apt/sid/sources.list").read_text()
    assert written == (f"deb [arch=amd64 lang=none target=Packages signed-by={keyring}] http://four/debian/ sid main\n")


def test_apt_without_a_usable_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    monkeypatch.setenv("PATH", _fake_apt(tmp_path, "echo http://x/ main nodistro"))
    with pytest.raises(ImageUnavailable, match="not configured with an archive of Debian") as caught:
        AptSource(debian(), tmp_path / "apt", keyring=str(keyring)).index("sid")
    assert "--kvm-archive=URL" in caught.value.hint
    with pytest.raises(ImageUnavailable, match="nowhere, are not there"):
        AptSource(debian(), tmp_path / "apt", keyring="/nowhere").index("sid")


@pytest.mark.parametrize("words", ["E: Write error - write (28: No space left on device)", ""], ids=["told", "killed"])
def test_apt_without_room(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    end = "exit 100"
    if not words:  # it maps its files
        end = "kill -BUS $$"
        monkeypatch.setattr("pytest_kvm.images.builtin.apt.shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    script = f"""case "$*" in
    *update*) echo "{words}" >&2; {end} ;;
    *) echo "http://four/debian/ main bookworm" ;;
    esac"""
    monkeypatch.setenv("PATH", _fake_apt(tmp_path, script))
    with pytest.raises(OSError, match="No space left on device") as caught:
        AptSource(debian(), tmp_path / "apt", keyring=str(keyring)).index("sid")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "apt").exists()  # others need the room


def test_apt_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    monkeypatch.setenv("PATH", _fake_apt(tmp_path, "kill -BUS $$"))
    with pytest.raises(ImageUnavailable, match=r"apt cannot list the archives .*: it was killed by SIGBUS"):
        AptSource(debian(), tmp_path / "apt", keyring=str(keyring)).index("sid")
