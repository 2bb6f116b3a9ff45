"""The names of images that others publish, and the way from a name to a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images import catalogue
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.images.published import Publisher, find_published, published_names
from pytest_kvm.images.publishers import PUBLISHERS
from pytest_kvm.spec.image import Image
from tests.images.disks import BINARY, make_qcow2
from tests.images.fetching.servers import Server, file, status


@pytest.fixture(autouse=True)
def _on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_every_name_leads_somewhere() -> None:
    names = published_names(PUBLISHERS)
    assert len(names) > 35
    for name in names:
        found = find_published(name, PUBLISHERS)
        assert found is not None
        assert found.name.startswith(name)
        assert found.source.filename.endswith((".img", ".qcow2"))
        assert "{" not in "".join((*found.source.urls, found.source.checksum_url or ""))
        assert all(url.startswith("https://") for url in found.source.urls)
        assert (found.source.checksum is None) == (found.source.checksum_url is not None)
        assert (found.image.ssh_user, found.image.seed) == (found.image.login, "nocloud")


@pytest.mark.parametrize(
    ("name", "full", "address"),
    [
        (
            "cirros",
            "cirros:0.6.3",
            "https://download.cirros-cloud.net/0.6.3/cirros-0.6.3-x86_64-disk.img",
        ),
        (
            "cirros:0.3.4-i386",
            "cirros:0.3.4-i386",
            "https://download.cirros-cloud.net/0.3.4/cirros-0.3.4-i386-disk.img",
        ),
        (
            "debian:13-aarch64",
            "debian:13-aarch64",
            "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-arm64.qcow2",
        ),
        (
            "opensuse-leap:15.6",
            "opensuse-leap:15.6",
            "https://download.opensuse.org/distribution/leap/15.6/appliances/"
            "openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2",
        ),
    ],
)
def test_addresses(name: str, full: str, address: str) -> None:
    found = find_published(name, PUBLISHERS)
    assert found is not None
    assert (found.name, found.source.urls[0]) == (full, address)


def test_the_hosts_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = find_published("cirros:0.6.3", PUBLISHERS)
    assert found is not None
    assert found.source.filename == "cirros-0.6.3-aarch64-disk.img"
    assert "cirros:0.4.0" not in published_names(PUBLISHERS)


def test_passwords_differ() -> None:
    passwords = {}
    for version in ("0.6.3", "0.4.0", "0.3.5", "0.3.4"):
        found = find_published(f"cirros:{version}", PUBLISHERS)
        assert found is not None
        passwords[version] = found.image.password
    assert passwords == {"0.6.3": "gocubsgo", "0.4.0": "gocubsgo", "0.3.5": "cubswin:)", "0.3.4": "cubswin:)"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "debian:7",
            "image 'debian:7': no version '7' for x86_64 is known; there are debian:13, debian:12 or debian:11",
        ),
        ("cirros:0.3.4-aarch64", "image 'cirros:0.3.4-aarch64': no version '0.3.4' for aarch64 is known; there are "),
        ("archlinux:latest-aarch64", "image 'archlinux:latest-aarch64': no version 'latest' for aarch64 is known"),
    ],
)
def test_unknown_versions(name: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_published(name, PUBLISHERS)
    assert str(caught.value).startswith(text)
    assert find_published("debain:13", PUBLISHERS) is None


@pytest.fixture
def publishers(secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Publisher]:
    """A publisher on loopback, with its list of checksums."""
    disk = make_qcow2(tmp_path / "disk").read_bytes()
    digest = hashlib.sha512(disk).hexdigest()
    address = secure.at("/1/thing-x86_64.qcow2", file(disk))
    secure.at("/1/SUMS", file(f"{digest}  thing-x86_64.qcow2\n".encode()))
    made = Publisher(
        versions={"1": {}},
        addresses=(address.replace("/1/", "/{version}/").replace("x86_64", "{arch}"),),
        checksums=secure.url("/{version}/SUMS"),
        image=Image("to be fetched", format="qcow2", ssh_user="me"),
    )
    monkeypatch.setattr(catalogue, "PUBLISHERS", {"thing": made})
    return {"thing": made}


def test_from_a_name_to_a_disk(cache: Path, publishers: object, secure: Server) -> None:
    found = Catalogue(binary=lambda: BINARY).find("thing")
    assert (found.label, found.format, found.ssh_user) == ("thing:1", "qcow2", "me")
    assert found.disk == cache / "downloads" / "thing-1" / "thing-x86_64.qcow2"
    assert Catalogue(binary=lambda: BINARY, offline=True).find("thing:1").disk == found.disk
    assert secure.paths == ["/1/SUMS", "/1/thing-x86_64.qcow2"]


def test_offline(cache: Path) -> None:
    with pytest.raises(ImageUnavailable) as caught:
        Catalogue(binary=lambda: BINARY, offline=True).find("cirros")
    assert str(caught.value) == (
        f"image 'cirros:0.6.3' is not in {cache}/downloads, and --kvm-offline forbids downloads\n"
        "  fetch it with 'pytest-kvm images pull cirros:0.6.3', or run once without --kvm-offline"
    )


def test_what_a_publisher_does_not_have(cache: Path, publishers: object, secure: Server) -> None:
    secure.at("/1/SUMS", status(404))
    with pytest.raises(ImageUnavailable, match=r"/1/SUMS cannot be fetched: 404 Not Found"):
        Catalogue(binary=lambda: BINARY).find("thing")


def test_an_address_with_its_checksum(cache: Path, server: Server, tmp_path: Path) -> None:
    disk = make_qcow2(tmp_path / "disk").read_bytes()
    url = server.at("/other.img", file(disk))
    digest = hashlib.sha256(disk).hexdigest()
    finder = Catalogue(binary=lambda: BINARY)
    found = finder.find(f"{url}#sha256={digest}")
    assert (found.label, found.format, found.when_ready) == (url, "qcow2", "login")
    described = finder.find(Image(url, checksum=f"sha256:{digest}", ssh_user="me"))
    assert (described.disk, described.ssh_user) == (found.disk, "me")
    assert server.paths == ["/other.img"]
    with pytest.raises(ImageUnavailable, match=r"other\.img is not what the publisher announces"):
        finder.find(f"{url}#sha256={'0' * 64}")


def test_what_is_fetched_is_one_whole_file(cache: Path, server: Server, tmp_path: Path) -> None:
    make_qcow2(tmp_path / "base")
    disk = make_qcow2(tmp_path / "disk", "-F", "qcow2", "-b", "base").read_bytes()
    url = server.at("/other.img", file(disk))
    with pytest.raises(SpecError, match="it has a backing file, 'base'; an image that is fetched has to be whole by"):
        Catalogue(binary=lambda: BINARY).find(f"{url}#sha256={hashlib.sha256(disk).hexdigest()}")
