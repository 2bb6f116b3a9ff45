"""Servers on loopback: of an archive of small packages, and of any file."""

from __future__ import annotations

import functools
import http.server
import shutil
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pytest_kvm.images.fetching.source import Source
from tests.images.builtin.fakes import FakeArchive, guest_packages
from tests.images.fetching.servers import CHECKSUM, DATA, Server, file, serving


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FakeArchive]:
    """A signed archive with the suite trixie."""
    for tool in ("gpg", "gpg-agent", "gpgv", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is not installed (tox installs it)")
    # gpg's agent listens on a socket in its home, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="pk-") as home:
        made = FakeArchive(tmp_path / "archive", Path(home) / "gpg")
        made.make_key()
        made.publish("trixie", guest_packages())
        yield made
        made.stop()


@pytest.fixture
def address(archive: FakeArchive) -> Iterator[str]:
    """Where the archive is served."""
    handler = functools.partial(_Handler, directory=str(archive.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no mirror, and no authority but that of the servers here."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("PYTEST_KVM_MIRROR", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server(plain: None) -> Iterator[Server]:
    """A web server without TLS."""
    with serving() as made:
        yield made


@pytest.fixture
def secure(plain: None, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server with a certificate that is trusted."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as made:
        yield made


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where the file goes, in a folder that is still to be made."""
    return tmp_path / "images" / "disk.img"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the store of fetched disks is."""
    return tmp_path / "downloads"


@pytest.fixture
def source(server: Server) -> Source:
    """A disk whose content is pinned."""
    return Source(urls=(server.at("/disk.img", file(DATA)),), filename="disk.img", checksum=CHECKSUM)
