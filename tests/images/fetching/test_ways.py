"""The way to a server: certificates, proxies, mirrors."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.fetching.web import download, read
from tests.images.fetching.downloading import TWICE, fails, works
from tests.images.fetching.servers import CHECKSUM, DATA, Server, file, serving


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates(
    secure: Server, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    url = secure.at("/disk.img", file(DATA))
    trusted = os.environ["REQUESTS_CA_BUNDLE"]
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv(variable, str(tmp_path / "other.pem"))
    assert fails(
        [url],
        into,
        patience=TWICE,
        hint="if a proxy or mirror of yours signs with a CA of its own, name that CA's file with REQUESTS_CA_BUNDLE or"
        " SSL_CERT_FILE",
    ).startswith(f"{url} cannot be fetched: its certificate is not trusted (unable to get local issuer certificate")
    monkeypatch.setenv(variable, trusted)
    works([url], into)


def test_certificate_of_another_host(secure: Server, authority: trustme.CA, into: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    with (
        serving(context) as other,
        pytest.raises(ImageUnavailable, match=r"certificate is not trusted \(.*127\.0\.0\.1"),
    ):
        download([other.at("/disk.img", file(DATA))], into, checksum=CHECKSUM, patience=TWICE)


def test_missing_authorities(secure: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = secure.at("/disk.img", file(DATA))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    message = fails([url], into, patience=TWICE)
    assert message.startswith(f"{url} cannot be fetched: Could not find a suitable TLS CA certificate bundle")
    assert message.endswith("/nowhere.pem")


def test_proxy(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://publisher.invalid/disk.img"
    server.at(url, file(DATA))  # a proxy is asked for the whole address
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    works([url], into)
    assert server.paths == [url]
    own = server.at("/own", file(DATA))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    works([own], into)
    assert server.paths == [url, "/own"]


def test_broken_proxy(plain: None, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        message = fails(["http://publisher.invalid/disk.img"], into)
    assert message == "http://publisher.invalid/disk.img cannot be fetched: its proxy: Connection refused"


def test_proxy_for_https(server: Server, secure: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url(""))
    works([secure.at("/disk.img", file(DATA))], into)
    assert (server.paths, secure.paths) == ([secure.host], ["/disk.img"])


def test_mirror(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as mirror:
        monkeypatch.setenv("PYTEST_KVM_MIRROR", mirror.url("/images/"))
        first, second = server.url("/a/disk.img"), server.at("/b/disk.img?x=1", file(DATA))
        assert works([first, second], into) == second
        assert mirror.paths == [f"/images/{server.host}/a/disk.img", f"/images/{server.host}/b/disk.img?x=1"]
        assert server.paths == ["/a/disk.img", "/b/disk.img?x=1"]
        there = mirror.at(mirror.paths[0], file(DATA))
        assert works([first, second], into) == there
        assert len(server.asked) == 2


def test_mirror_that_is_no_address(plain: None, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_KVM_MIRROR", "/srv/mirror")
    with pytest.raises(SpecError) as caught:
        download(["http://127.0.0.1:1/"], into, checksum=CHECKSUM)
    assert str(caught.value) == (
        "PYTEST_KVM_MIRROR='/srv/mirror' is not an http or https address, such as https://HOST/images"
    )


def test_what_nothing_verifies_is_read_from_a_safe_mirror_only(
    server: Server, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = secure.at("/SUMS", file(b"text"))
    monkeypatch.setenv("PYTEST_KVM_MIRROR", server.url(""))
    server.at(f"/{secure.host}/SUMS", file(b"forged"))
    assert read(url, 10) == b"text"
    assert server.asked == []
    monkeypatch.setenv("PYTEST_KVM_MIRROR", secure.url("/mirror"))
    secure.at(f"/mirror/{secure.host}/SUMS", file(b"mirrored"))
    assert read(url, 10) == b"mirrored"
