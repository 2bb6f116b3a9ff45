"""A guest whose SSH server says what it likes, in each phase of a connection."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import CommandTimeout, SSHError, TooMuchOutput, TransferError, WaitTimeout
from pytest_kvm.guest.ssh import connection, session
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.guest.ssh.transport import GuestTransport
from pytest_kvm.waiting import Watch
from tests.guest.ssh.conftest import Connect, Start
from tests.guest.ssh.liars import IMAGE, LIMIT, Part, liar, message, send, serving
from tests.guest.ssh.sshd import Daemon, Handler, ssh_to, transport_of

VERSION = b"SSH-2.0-liar\r\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setattr(connection, "_BANNER_PATIENCE", 0.2)
    monkeypatch.setattr(session, "_KILL_PATIENCE", 0.2)
    monkeypatch.setattr(session, "_CLOSE_PATIENCE", 0.2)


@contextlib.contextmanager
def ssh(handler: Handler, **changes: object) -> Iterator[SSH]:
    with serving(handler) as server, ssh_to(server, IMAGE, Watch(), **changes) as made:
        yield made


def refusal(handler: Handler, timeout: float) -> str:
    """Return what is said of a server to which there is no connection."""
    began = time.monotonic()
    with ssh(handler) as made, pytest.raises(SSHError) as caught:
        made.connect(timeout=timeout)
    assert time.monotonic() - began < LIMIT
    return str(caught.value)


def is_told(handler: Handler, pattern: str) -> bool:
    """Return whether a try that a busy host did not cut short says so."""
    return any(re.search(f"last try: .*{pattern}", refusal(handler, timeout)) for timeout in (0.3, 1, 5))


# Before anybody is let in

TEXTS = st.lists(
    st.sampled_from(
        [b"SSH-", b"SSH-2.0-", b"SSH-1.5-x\r\n", b"SSH-2.0-OpenSSH\r\n", b"\n", b"\xff", b"\x1b[2J", b"x" * 300]
    )
    | st.binary(max_size=9),
    max_size=6,
).map(b"".join)


@settings(max_examples=25)
@given(TEXTS)
def test_any_greeting(text: bytes) -> None:
    def handler(wire: socket.socket) -> None:
        wire.sendall(text)
        wire.shutdown(socket.SHUT_WR)

    assert "\x1b" not in refusal(handler, 0.1)


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (b"x" * 1000, "what answered is no SSH server: the server's greeting has more than 65536 bytes"),
        (b"x\n", "what answered is no SSH server|Indecipherable protocol version"),
        (b"\xff\n", "what answered is no SSH server: it says what makes no sense"),
    ],
)
def test_an_endless_greeting(piece: bytes, said: str) -> None:
    def handler(wire: socket.socket) -> None:
        while True:
            wire.sendall(piece)

    assert is_told(handler, said)


def test_a_greeting_that_drips() -> None:
    def handler(wire: socket.socket) -> None:
        while True:
            wire.sendall(b"x")
            time.sleep(0.01)

    assert "no SSH server answered within 0.2 s" in refusal(handler, 0.5)


def packet(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8 + 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


NAMES = ",".join(
    ["diffie-hellman-group14-sha256", "ecdh-sha2-nistp256", "curve25519-sha256", "kex-strict-s-v00@openssh.com"]
)


def kexinit() -> bytes:
    """Return the lists of a server with whom there is something in common."""
    lists = [NAMES, "ssh-ed25519", *["aes128-ctr"] * 2, *["hmac-sha2-256"] * 2, *["none"] * 2, "", ""]
    return bytes([20]) + bytes(16) + b"".join(struct.pack(">I", len(text)) + text.encode() for text in lists) + bytes(5)


PACKETS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(packet),
    st.builds(lambda kind, rest: packet(bytes([kind]) + rest), st.integers(0, 110), st.binary(max_size=40)),
    st.just(packet(kexinit())),
    # An answer of a key exchange: a host key, a point or number, a signature.
    st.builds(
        lambda *parts: packet(bytes([31]) + b"".join(struct.pack(">I", len(part)) + part for part in parts)),
        st.binary(max_size=60),
        st.binary(max_size=40) | st.just(bytes(32)),
        st.binary(max_size=60),
    ),
    st.just(packet(bytes([7, 255, 255, 255, 255]))),
    st.just(packet(b"")),
    st.just(struct.pack(">IB", 0, 0) + bytes(3)),
)


@settings(max_examples=40)
@given(st.lists(PACKETS, min_size=1, max_size=5))
def test_any_packets(packets: list[bytes]) -> None:
    def handler(wire: socket.socket) -> None:
        wire.sendall(VERSION + b"".join(packets))
        wire.shutdown(socket.SHUT_WR)

    refusal(handler, 0.1)


@pytest.mark.parametrize("size", [0xFFFFFFFC, 0x7FFFFFFC, (256 << 10) + 12])
def test_a_huge_packet(size: int) -> None:
    def handler(wire: socket.socket) -> None:
        wire.sendall(VERSION + struct.pack(">I", size))
        while True:
            wire.sendall(bytes(1 << 16))

    tracemalloc.start()
    try:
        assert is_told(handler, r"the server announces a packet of \d+ bytes")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_server_that_is_cut_off_anywhere(sshd: Start, connect: Connect) -> None:
    """After so many bytes of a good server's; where a number falls differs from one time to the next."""
    daemon = sshd()
    good = daemon.handler
    ours = connect(daemon)
    ours.run("true")
    for number in (*range(0, 2400, 200), *range(2400, 4000, 100)):
        ours.close()
        daemon.handler = _cut(good, number)
        with contextlib.suppress(SSHError):
            assert ours.run("echo out", check=False, timeout=0.3).stdout in {"out\n", ""}
    ours.close()
    daemon.handler = good
    assert ours.run("echo out", timeout=LIMIT).stdout == "out\n"


def _cut(good: Handler, size: int) -> Handler:
    """Return a server that breaks off after so many bytes."""

    def handler(wire: socket.socket) -> None:
        inner, outer = socket.socketpair()
        good(inner)

        def back() -> None:
            left = size
            with contextlib.suppress(OSError):
                while left and (data := outer.recv(min(left, 1 << 16))):
                    wire.sendall(data)
                    left -= len(data)
                wire.shutdown(socket.SHUT_RDWR)
                outer.shutdown(socket.SHUT_RDWR)

        def forth() -> None:
            with contextlib.suppress(OSError):
                while data := wire.recv(1 << 16):
                    outer.sendall(data)
                outer.shutdown(socket.SHUT_RDWR)
            outer.close()

        for work in (back, forth):
            threading.Thread(target=work, daemon=True).start()

    return handler


# While somebody logs in


@pytest.mark.parametrize(
    "asked",
    [
        message(60, "", "", "", 0xFFFFFFFF),
        message(60, "", "", "", 5, "Password: ", False),
        message(60),
        message(60, b"\xff" * 40),
        message(7, 0xFFFFFFFF),
        message(51, "\x1b[2Jkeyboard", False),
        message(53, b"\xff" * 10),
        message(1, 2, "\x1b]0;title\x07" + "x" * 10_000, ""),
        message(200),
        message(4, True, "debug \x1b[2J", ""),
    ],
)
def test_what_a_server_asks(asked: paramiko.Message) -> None:
    def part(transport: paramiko.Transport) -> None:
        send(transport, asked)

    began = time.monotonic()
    with ssh(liar(lambda *_: None, asks=part), password="secret") as made, pytest.raises(SSHError) as caught:
        made.connect(timeout=1)
    for thread in threading.enumerate():
        if isinstance(thread, GuestTransport):
            thread.join(LIMIT)  # whatever it was told
            assert not thread.is_alive()
    assert time.monotonic() - began < LIMIT
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    cause: BaseException | None = caught.value
    while cause is not None:  # pytest shows these, too
        assert "\x1b" not in str(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


# When somebody was let in

CHANNEL = st.sampled_from([0, 0, 0, 1, 7, 0xFFFFFFFF])
NUMBER = st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=9)
SIGNALS = st.sampled_from(["KILL", "_DFL", "", "\x00", "KILL.name", "RTMIN"])
ANYTHING = st.one_of(
    st.builds(message, st.integers(1, 110), st.binary(max_size=30)),
    st.builds(message, st.just(94), CHANNEL, TEXT),
    st.builds(message, st.just(95), CHANNEL, st.integers(0, 3), TEXT),
    st.builds(message, st.just(98), CHANNEL, st.just("exit-status"), st.just(False), NUMBER),
    st.builds(message, st.just(98), CHANNEL, st.just("exit-signal"), st.just(False), SIGNALS, st.just(False)),
    st.builds(message, st.just(98), CHANNEL, TEXT, st.just(True)),
    st.builds(message, st.sampled_from([96, 97, 99, 100]), CHANNEL),
    st.builds(message, st.just(93), CHANNEL, NUMBER),
    st.just(message(7, 0xFFFFFFFF)),
    st.just(message(90, "session", 1, 1, 1)),
    st.just(message(20, bytes(40))),
)


@settings(max_examples=20)
@given(st.lists(ANYTHING, max_size=6), st.booleans())
def test_anything_under_a_command(messages: list[paramiko.Message], ends: bool) -> None:
    def part(transport: paramiko.Transport, channel: paramiko.Channel, _: bytes) -> None:
        send(transport, *messages)
        if ends:
            channel.send_exit_status(0)
            channel.close()

    with ssh(liar(part)) as made, contextlib.suppress(SSHError, CommandTimeout):
        result = made.run("true", check=False, timeout=0.2)
        assert result.returncode >= 0


def test_data_that_it_may_not_send_yet() -> None:
    def part(transport: paramiko.Transport, channel: paramiko.Channel, _command: bytes) -> None:
        for _ in range(10_000):
            send(transport, message(94, channel.remote_chanid, "x" * 32_000))

    with ssh(liar(part)) as made:
        transport = transport_of(made.client)
        lazy = transport.open_session()
        tracemalloc.start()
        try:
            lazy.exec_command("yes")  # and nobody reads
            lazy.shutdown_write()
            end = time.monotonic() + LIMIT
            while not transport.over and time.monotonic() < end:
                time.sleep(0.01)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()
        assert transport.reason() == "the server sent more than it was allowed to"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood(server: Daemon, connect: Connect, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "OUTPUT_LIMIT", 1 << 20)
    monkeypatch.setattr(session, "_KILL_PATIENCE", LIMIT)
    monkeypatch.setattr(session, "_CLOSE_PATIENCE", LIMIT)
    ours = connect(server)
    command = "yes" if stream == "stdout" else "yes >&2"
    with pytest.raises(TooMuchOutput) as caught:
        ours.run(command, timeout=LIMIT)
    assert str(caught.value).startswith(
        f"VM 'vm': command wrote more than 256 MiB to {stream} and was killed (SSH, as "
    )
    assert ours.run("echo usable", timeout=LIMIT).stdout == "usable\n"


def test_a_flood_that_ends_is_one_all_the_same(
    server: Daemon, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "OUTPUT_LIMIT", 1 << 16)
    with pytest.raises(TooMuchOutput):
        connect(server).run("head -c 200000 /dev/zero", timeout=LIMIT)


# Copying


def mark_of(command: bytes) -> bytes:
    found = re.search(rb"\bk=(\w+)", command)
    assert found is not None
    return found[1]


def says(after: bytes, status: int = 0) -> Part:
    """Return a part that says this after the mark."""

    def part(_: paramiko.Transport, channel: paramiko.Channel, command: bytes) -> None:
        found = re.search(rb"\bk=(\w+)", command)
        channel.sendall((found[1] if found else b"") + after)
        channel.send_exit_status(status)
        channel.close()

    return part


@pytest.mark.parametrize(
    ("header", "copied"),
    [
        (b" -rw-r--r-- 4\ndata", b"data"),
        (b" \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff 4\ndata", b"data"),
        (b" -rwxrwxrwx " + b"9" * 5000 + b"\ndata", b"data"),
        (b" -rw-r--r-- -4\ndata", b"data"),
        (b" -rw-r--r-- \xc2\xb2\ndata", b"data"),
        (b" -rw-r--r-- 9999999999\ndata", None),
        (b"", None),
        (b"x" * (2 << 20), None),
        (b" d\nno archive", None),
        (b" d\n", None),
        (b" x" * 100_000 + b"\n", None),
    ],
)
def test_what_is_said_of_a_file(header: bytes, copied: bytes | None, here: Path) -> None:
    with ssh(liar(says(header))) as made:
        if copied is None:
            with pytest.raises(TransferError):
                made.get("/etc/passwd", here / "copy", timeout=LIMIT)
            assert list(here.iterdir()) == []
        else:
            assert made.get("/etc/passwd", here / "copy", timeout=LIMIT).read_bytes() == copied


def test_a_file_that_never_ends(here: Path) -> None:
    def part(_: paramiko.Transport, channel: paramiko.Channel, command: bytes) -> None:
        if b"kill -9" in command:
            return  # it is not obeyed
        channel.sendall(mark_of(command) + b" -rw-r--r-- 4\n")
        while True:
            channel.sendall(bytes(1 << 15))

    with ssh(liar(part)) as made, pytest.raises(WaitTimeout, match=r"did not end within 0\.3 s"):
        made.get("/dev/zero", here / "copy", timeout=0.3)
    assert list(here.iterdir()) == []


def test_a_guest_that_complains_without_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "OUTPUT_LIMIT", 1 << 20)

    def part(_: paramiko.Transport, channel: paramiko.Channel, command: bytes) -> None:
        while True:
            channel.sendall_stderr(b"no\n" * 10_000)

    with ssh(liar(part)) as made, pytest.raises(TransferError, match="the guest says more than 256 MiB on stderr"):
        made.get("/etc/passwd", here / "copy", timeout=LIMIT)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("said", [b"in", b"\xff in", b"", b"x" * 100_000, b"in\nout"])
def test_what_is_said_of_a_copy(said: bytes, here: Path) -> None:
    with ssh(liar(says(said))) as made:
        assert made.put(b"data", "/tmp/copy", timeout=LIMIT) == "/tmp/copy"
        (here / "file").write_text("data")
        assert made.put(here / "file", "/tmp/copy", timeout=LIMIT) in {"/tmp/copy", "/tmp/copy/file"}


@pytest.mark.parametrize("key", ["ssh-ed25519 A", "ssh-ed25519 AAAA", "ssh-rsa ====", "no-such-kind AAAA"])
def test_a_host_key_that_is_none(key: str) -> None:
    with ssh(liar(lambda *_: None), ssh_host_key=key) as made, pytest.raises(SSHError) as caught:
        made.connect(timeout=LIMIT)
    assert str(caught.value).startswith(f"VM 'vm': Image(ssh_host_key='{key}') is no public key: ")
