"""What a clone is told when it comes to itself, with a socket in the guest's place."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable

import pytest

from pytest_kvm.guest.shell import resume
from pytest_kvm.guest.shell.resume import Resume
from pytest_kvm.images.builtin.programs import ENTROPY_BYTES

SIZE = struct.calcsize("=qqii") + ENTROPY_BYTES


def repaired(guest: Callable[[socket.socket], None]) -> None:
    """Let the host's end repair a guest; what the guest's end does is up to the test."""

    async def both() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(10)
        port = Resume(ours)
        with theirs:
            playing = asyncio.get_running_loop().run_in_executor(None, guest, theirs)
            try:
                await asyncio.wait_for(port.repair(), 10)
            finally:
                port.close()
                await playing

    asyncio.run(both())


def request(guest: socket.socket) -> bytes:
    data = b""
    while len(data) < SIZE:
        data += guest.recv(SIZE - len(data))
    return data


def test_the_time_and_fresh_numbers() -> None:
    requests: list[bytes] = []

    def guest(port: socket.socket) -> None:
        requests.append(request(port))
        port.sendall(requests[-1][:8])

    repaired(guest)
    repaired(guest)
    for each in requests:
        seconds, nanoseconds, bits, size = struct.unpack("=qqii", each[: struct.calcsize("=qqii")])
        assert abs(seconds + nanoseconds / 1e9 - time.time()) < 5
        assert (bits, size) == (8 * ENTROPY_BYTES, ENTROPY_BYTES)
    assert requests[0][-ENTROPY_BYTES:] != requests[1][-ENTROPY_BYTES:]


def test_a_slow_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "CLOSE_ENOUGH", -1.0)  # no answer is quick enough
    asked: list[bytes] = []

    def guest(port: socket.socket) -> None:
        for _ in range(resume.TRIES):
            asked.append(request(port))
            port.sendall(asked[-1][:8])

    repaired(guest)
    assert len(asked) == resume.TRIES


def test_an_answer_to_somebody_else_is_passed_over() -> None:
    def guest(port: socket.socket) -> None:
        port.sendall(b"in pieces, of 8 bytes each.....!" + b"\0" * 3)
        answer = request(port)[:8]
        port.sendall(b"\0" * 5 + answer[:2])
        port.sendall(answer[2:])

    repaired(guest)


def test_a_machine_that_goes_off() -> None:
    def guest(port: socket.socket) -> None:
        request(port)
        port.close()

    with pytest.raises(ConnectionResetError, match="the machine went off"):
        repaired(guest)
