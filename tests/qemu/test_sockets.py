"""Sockets between us and QEMU."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.qemu.sockets import PATH_LIMIT, Listener, check_path


def test_the_longest_path_and_one_more() -> None:
    longest = Path("/" + "é" * ((PATH_LIMIT - 1) // 2))
    assert len(bytes(longest)) == PATH_LIMIT
    assert check_path(longest) == longest
    with pytest.raises(HostError) as caught:
        check_path(Path(f"{longest}x"))
    assert str(caught.value).splitlines() == [
        f"the socket path {longest}x has 108 bytes, AF_UNIX allows 107",
        "  set TMPDIR to a shorter directory",
    ]


def test_a_connection_waits_until_it_is_accepted(tmp_path: Path) -> None:
    with closing(Listener(tmp_path / "s")) as listener, listener.connect() as ours:
        ours.sendall(b"early")
        theirs, _ = listener.socket.accept()
        with theirs:
            assert theirs.recv(10) == b"early"


def test_a_predecessors_socket_is_replaced(tmp_path: Path) -> None:
    Listener(tmp_path / "s").close()
    with closing(Listener(tmp_path / "s")) as listener:
        listener.connect().close()
