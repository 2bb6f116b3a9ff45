"""Packages without apt: nothing is believed that the archive's signature does not cover."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.builtin.archive import ArchiveSource
from pytest_kvm.images.builtin.distribution import debian, ubuntu
from pytest_kvm.images.fetching.patience import Patience
from tests.images.builtin.fakes import FakeArchive, guest_packages


def _source(archive: FakeArchive, address: str) -> ArchiveSource:
    return ArchiveSource(ubuntu("trixie"), address, keyring=str(archive.keyring))


def _replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_index_and_packages(archive: FakeArchive, address: str, tmp_path: Path, compression: str) -> None:
    archive.publish("noble", guest_packages(), compression=compression)
    source = _source(archive, address + "/")
    package = source.index("noble").find("busybox-static")
    source.fetch("noble", [package], tmp_path)
    assert (tmp_path / f"{package.sha256}.deb").stat().st_size == package.size


def test_changed_package(archive: FakeArchive, address: str, tmp_path: Path) -> None:
    source = _source(archive, address)
    package = source.index("trixie").find("busybox-static")
    path = archive.root / package.filename
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageUnavailable, match=rf"busybox.*expected SHA-256 {package.sha256}, got "):
        source.fetch("trixie", [package], tmp_path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ImageUnavailable, match=f"expected at most {package.size} bytes, got more"):
        source.fetch("trixie", [package], tmp_path)


def test_changed_index(archive: FakeArchive, address: str) -> None:
    index = archive.root / "dists/trixie/main/binary-amd64/Packages.xz"
    index.write_bytes(index.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageUnavailable, match=r"Packages\.xz is not what the archive announces"):
        _source(archive, address).index("trixie")


def test_changed_release(archive: FakeArchive, address: str) -> None:
    _replace(archive.root / "dists/trixie/InRelease", b"Origin: Fake", b"Origin: Evil")
    with pytest.raises(ImageUnavailable, match=r"trixie of archive .* has no good signature"):
        _source(archive, address).index("trixie")


def test_what_stands_outside_the_signature_counts_for_nothing(archive: FakeArchive, address: str) -> None:
    path = archive.root / "dists/trixie/InRelease"
    path.write_bytes(b"Codename: sid\n" + path.read_bytes() + b"Codename: sid\n")
    with pytest.raises(ImageUnavailable):
        _source(archive, address).index("sid")


def test_unsigned_release(archive: FakeArchive, address: str) -> None:
    (archive.root / "dists/trixie/InRelease").write_text("Codename: trixie\nSHA256:\n")
    with pytest.raises(ImageUnavailable, match="has no good signature"):
        _source(archive, address).index("trixie")


def test_other_key(archive: FakeArchive, address: str, tmp_path: Path) -> None:
    with FakeArchiveElsewhere(tmp_path / "other") as other:
        source = ArchiveSource(debian(), address, keyring=str(other.keyring))
        with pytest.raises(ImageUnavailable, match=r"has no good signature.*No public key"):
            source.index("trixie")


class FakeArchiveElsewhere:
    """A key that signed nothing."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._archive = FakeArchive(directory / "archive", directory / "gpg")

    def __enter__(self) -> FakeArchive:
        self._archive.make_key()
        return self._archive

    def __exit__(self, *_: object) -> None:
        self._archive.stop()


def test_other_suite_in_its_place(archive: FakeArchive, address: str) -> None:
    shutil.copytree(archive.root / "dists/trixie", archive.root / "dists/sid")
    with pytest.raises(ImageUnavailable, match="gave the suite stable/trixie when asked for sid"):
        _source(archive, address).index("sid")


def test_expired(archive: FakeArchive, address: str) -> None:
    archive.publish("old", guest_packages(), extra="Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC\n")
    with pytest.raises(ImageUnavailable, match="was valid until Sat, 01 Jan 2022"):
        _source(archive, address).index("old")


def test_nothing_there(archive: FakeArchive, address: str) -> None:
    with pytest.raises(ImageUnavailable, match=r"/dists/sid/InRelease cannot be fetched: 404"):
        _source(archive, address).index("sid")


def test_nobody_there(archive: FakeArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.images.builtin.archive._PATIENCE", Patience(pauses=(0.0,)))
    with pytest.raises(ImageUnavailable, match=r"cannot be fetched: .*refused"):
        _source(archive, "http://127.0.0.1:1").index("trixie")


def test_tools_and_keys_missing(archive: FakeArchive, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArchiveSource(debian(), address, keyring="/nowhere.gpg")
    with pytest.raises(ImageUnavailable, match=re.escape("/nowhere.gpg, are not there")):
        source.index("trixie")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageUnavailable, match="gpgv is not installed"):
        _source(archive, address).index("trixie")


@pytest.mark.parametrize("address", ["ftp://x/debian", "/srv/debian", "http:///debian", "file:///srv"])
def test_other_kinds_of_addresses(address: str) -> None:
    with pytest.raises(SpecError, match="is not an http or https address"):
        ArchiveSource(debian(), address)
