"""Files from the web, from servers of all kinds."""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.web import download, read
from tests.images.fetching.downloading import ONCE, SHORT, TWICE, fails, works
from tests.images.fetching.servers import (
    CHECKSUM,
    DATA,
    Handler,
    Server,
    chunked,
    file,
    hang,
    hang_up,
    redirect,
    status,
)


def test_good(server: Server, into: Path) -> None:
    url = server.at("/disk.img", file(DATA))
    said: list[str] = []
    assert download([url], into, checksum=CHECKSUM, report=said.append) == url
    assert into.read_bytes() == DATA
    assert os.listdir(into.parent) == ["disk.img"]
    assert said == [f"downloading {url} (0.3 MB)"]
    [(_, headers)] = server.asked
    assert (headers["User-Agent"], headers["Accept-Encoding"], headers["Range"]) == ("pytest-kvm", "identity", None)


def test_replaced(server: Server, into: Path) -> None:
    into.parent.mkdir()
    into.write_bytes(b"old")
    with into.open("rb") as stream:
        works([server.at("/disk.img", file(DATA))], into)
        assert stream.read() == b"old"


def test_length_unknown(server: Server, into: Path) -> None:
    said: list[str] = []
    url = server.at("/disk.img", chunked(DATA))
    download([url], into, checksum=CHECKSUM, report=said.append)
    assert into.read_bytes() == DATA
    assert said == [f"downloading {url} (of unknown size)"]


def test_compressed_file_stays_compressed(server: Server, into: Path) -> None:
    data = gzip.compress(DATA)

    def act(handler: Handler) -> None:
        handler.head(200, Content_Encoding="gzip", Content_Length=len(data))
        handler.wfile.write(data)

    download([server.at("/disk.img.gz", act)], into, checksum=None)
    assert into.read_bytes() == data


def test_wrong_content(server: Server, into: Path) -> None:
    url = server.at("/disk.img", file(b"evil"), file(DATA))
    assert fails([url], into, patience=TWICE) == (
        f"{url} is not what the publisher announces: expected SHA-256 {CHECKSUM.hex},"
        " got b5c1fb2efc6d6b4674c2fdcc48ce01b43a3b7c03763c0c3355de0099ee0f8c73"
    )
    assert os.listdir(into.parent) == []
    works([url], into)


def test_wrong_content_at_the_first_address(server: Server, into: Path) -> None:
    good = server.at("/good", file(DATA))
    assert works([server.at("/evil", file(b"evil")), good], into) == good
    assert server.paths == ["/evil", "/good"]


def test_not_there(server: Server, into: Path) -> None:
    gone, good = server.url("/gone"), server.at("/good", file(DATA))
    forbidden = server.at("/forbidden", status(403))
    assert fails([gone, forbidden], into, patience=TWICE) == (
        f"{gone} cannot be fetched: 404 Not Found; {forbidden} cannot be fetched: 403 Forbidden"
    )
    assert server.paths == ["/gone", "/forbidden"]
    assert works([gone, good], into) == good


def test_trouble_that_passes(server: Server, into: Path) -> None:
    url = server.at("/disk.img", status(500), status(503), hang_up, file(DATA))
    said: list[str] = []
    patience = Patience(pauses=(0.0, 0.001, 0.0))
    download([url], into, checksum=CHECKSUM, report=said.append, patience=patience)
    assert into.read_bytes() == DATA
    assert said[:3] == [
        f"{url} cannot be fetched: 500 Internal Server Error; asking again in 0 s",
        f"{url} cannot be fetched: 503 Service Unavailable; asking again in 0.001 s",
        f"{url} cannot be fetched: Connection reset by peer; asking again in 0 s",
    ]


def test_trouble_that_stays(server: Server, into: Path) -> None:
    url = server.at("/disk.img", status(503))
    assert fails([url], into, patience=TWICE) == f"{url} cannot be fetched: 503 Service Unavailable (2 attempts)"
    assert len(server.asked) == 2


def test_unexpected_answer(server: Server, into: Path) -> None:
    url = server.at("/disk.img", status(204))
    assert fails([url], into, patience=TWICE) == f"{url} cannot be fetched: 204 No Content"


def test_nobody_there(plain: None, into: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}/disk.img"
        message = fails([url], into, patience=TWICE)
    assert message == f"{url.replace('user:secret@', '')} cannot be fetched: Connection refused (2 attempts)"


def test_unknown_host(plain: None, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = fails(["http://nowhere.invalid/disk.img"], into, patience=TWICE)
    assert message == "http://nowhere.invalid/disk.img cannot be fetched: Name or service not known"


def test_silence_before_the_answer(server: Server, into: Path) -> None:
    url = server.at("/disk.img", hang, file(DATA))
    assert fails([url], into, patience=SHORT) == f"{url} cannot be fetched: the server was silent for 0.2 s"
    works([url], into)


def test_slow_but_flowing(server: Server, into: Path) -> None:
    def act(handler: Handler) -> None:
        handler.head(200, Content_Length=len(DATA))
        for start in range(0, len(DATA), len(DATA) // 10):
            handler.server.over.wait(0.15)
            handler.wfile.write(DATA[start : start + len(DATA) // 10])

    works([server.at("/disk.img", act)], into, patience=Patience(silence=1.0, pauses=()))


def test_redirect(server: Server, secure: Server, into: Path) -> None:
    target = secure.at("/real", file(DATA))
    url = server.at("/disk.img", redirect("/here"))
    server.at("/here", redirect(target))
    assert works([url], into) == url


def test_redirect_without_encryption(server: Server, secure: Server, into: Path) -> None:
    target = server.at("/disk.img", file(DATA))
    url = secure.at("/disk.img", redirect("/there"))
    secure.at("/there", redirect(target))
    assert fails([url], into) == f"{url} cannot be fetched: it redirects to {target}, without https"
    assert server.asked == []


def test_endless_redirect(server: Server, into: Path) -> None:
    url = server.at("/disk.img", redirect("/disk.img"))
    assert fails([url], into, patience=TWICE) == f"{url} cannot be fetched: Exceeded 30 redirects."


def test_read(server: Server) -> None:
    url = server.at("/SUMS", status(500), file(b"text"))
    assert read(url, 4, patience=TWICE) == b"text"
    for act in (file(b"text"), chunked(b"text")):
        server.at("/SUMS", act)
        with pytest.raises(
            ImageUnavailable, match="not what the publisher announces: expected at most 3 bytes, got more"
        ):
            read(url, 3)
    server.at("/SUMS", file(b"text", end=2))
    with pytest.raises(ImageUnavailable) as caught:
        read(url, 4, patience=ONCE)
    assert str(caught.value).startswith(
        f"{url} cannot be fetched: the connection was closed before all of its 4 bytes were received\n"
    )
