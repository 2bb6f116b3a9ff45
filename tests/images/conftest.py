"""An archive of small packages, served from loopback."""

from __future__ import annotations

import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.fakes import FakeArchive, guest_packages


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
