"""What a name, an address, a path or a description means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.spec.image import Image
from tests.images.disks import BINARY, make_qcow2


@pytest.fixture
def catalogue(cache: Path) -> Catalogue:
    return Catalogue(binary=lambda: BINARY)


def test_names(catalogue: Catalogue) -> None:
    names = catalogue.names()
    assert names[:2] == ["tiny", "tiny:trixie"]
    assert {"tiny:bookworm", "tiny:trixie-backports", "tiny:sid", "cirros", "cirros:0.3.4", "debian:13"} <= set(names)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("tyni", "tiny"), ("tiny:bookwurm", "tiny:bookworm"), ("cirrus", "cirros"), ("debain:13", "debian:13")],
)
def test_mistyped_name(catalogue: Catalogue, wrong: str, near: str) -> None:
    with pytest.raises(
        SpecError, match=f"image '{wrong}' is neither a file nor a known name; did you mean '{near}'"
    ) as caught:
        catalogue.find(wrong)
    assert (caught.value.keyword, caught.value.value) == ("image", wrong)


def test_disk(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"\x55\xaa" * 256)
    image = catalogue.find(path)
    assert (image.disk, image.format, image.when_ready, image.kernel) == (path, "raw", "login", None)
    assert catalogue.find(str(path)) == image
    monkeypatch.chdir(tmp_path)
    assert catalogue.find("disk.img").disk == path
    assert catalogue.find("./disk.img").disk == path
    assert catalogue.find(make_qcow2(tmp_path / "other.img")).format == "qcow2"


def test_missing_file(tmp_path: Path, catalogue: Catalogue) -> None:
    with pytest.raises(SpecError, match=r"nothing\.img' cannot be read: No such file") as caught:
        catalogue.find(tmp_path / "nothing.img")
    assert caught.value.keyword == "image"
    with pytest.raises(SpecError, match="Is a directory"):
        catalogue.find(tmp_path)


def test_description(tmp_path: Path, cache: Path) -> None:
    disk = make_qcow2(tmp_path / "disk")
    mine = Image(disk, ssh_user="me", seed=True)
    catalogue = Catalogue(binary=lambda: BINARY, described={"mine": mine, "cirros": mine})
    assert catalogue.names()[:2] == ["mine", "cirros"]
    for found in (catalogue.find("mine"), catalogue.find("cirros"), catalogue.find(mine)):
        assert (found.disk, found.format, found.ssh_user, found.seed) == (disk, "qcow2", "me", True)
    assert catalogue.find("mine").label == "mine"
    assert catalogue.find(mine).label == str(disk)


def test_what_lasts(tmp_path: Path, cache: Path) -> None:
    catalogue = Catalogue(binary=lambda: BINARY, described={"mine": Image("disk")})
    assert catalogue.lasts("tiny")
    assert catalogue.lasts("cirros")
    assert catalogue.lasts(f"https://example.org/disk.img#sha256={'0' * 64}")
    assert not catalogue.lasts("mine")
    assert not catalogue.lasts(Image("disk"))
    assert not catalogue.lasts("./disk.img")
    assert not catalogue.lasts(tmp_path)


def test_a_name_like_no_other(catalogue: Catalogue) -> None:
    with pytest.raises(
        SpecError, match=r"known name; there are tiny, cirros, debian, .*\('pytest-kvm images list --all'"
    ):
        catalogue.find("qqqqqqqq")


def test_files_of_a_description(tmp_path: Path, cache: Path) -> None:
    mine = Image(make_qcow2(tmp_path / "disk"), ssh_user="me", ssh_key=tmp_path / "key")
    catalogue = Catalogue(binary=lambda: BINARY, described={"mine": mine})
    with pytest.raises(SpecError) as caught:
        catalogue.find("mine")
    assert str(caught.value) == f"image 'mine': ssh_key='{tmp_path}/key': there is no such file"


def test_a_pipe_is_no_disk(tmp_path: Path, catalogue: Catalogue) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpecError, match="it is neither a file nor a block device"):
        catalogue.find(tmp_path / "pipe")
