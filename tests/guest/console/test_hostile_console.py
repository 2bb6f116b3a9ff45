"""A guest that prints what it likes, and as much as it likes: waits end in time, and memory is bounded."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pexpect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import ConsoleTimeout, LoginFailed, ShellLost, TooMuchOutput
from pytest_kvm.guest.console import console as console_module
from pytest_kvm.guest.console import dialogue, serial, typed
from pytest_kvm.guest.console import login as login_module
from pytest_kvm.guest.console.screen import Screen, shell_prompt, shows_login_prompt
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.spec.image import Image
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.console.terminals import LIMIT, Actor, Line, line, playing
from tests.guest.console.wires import plugged

IMAGE = Image("disk", name="image", login="bob", password="secret")
PROMPT = shell_prompt(r"[$#] ")
# What prompts, messages and escape sequences are made of.
PIECES = st.sampled_from(
    [
        *(
            "\r",
            "\n",
            "\r\n",
            "\x1b",
            "\x1b[",
            "\x1b[m",
            "\x1b[2J",
            "\x1b]",
            "\x07",
            "[",
            "]",
            "[*",
            "[ OK ] ",
            "[    1.000000] ",
        ),
        *(
            "login: ",
            "Password: ",
            "New password: ",
            "# ",
            "$ ",
            "Login incorrect",
            "\0",
            "\udcff",
            "ä",
            "x",
            " ",
            "9" * 30,
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join)


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_QUIET", "_ANSWER", "_ECHO_PATIENCE", "_PAUSE", "_PROBE_PATIENCE"):
        monkeypatch.setattr(login_module, name, 0.05)
    monkeypatch.setattr(typed, "_QUIET", 0.05)
    monkeypatch.setattr(typed, "_INTERRUPT_PATIENCE", 0.1)
    monkeypatch.setattr(dialogue, "_SETTLE_PATIENCE", 0.1)
    monkeypatch.setattr(dialogue, "_TYPING_PATIENCE", 0.3)


# Whatever is printed


@given(st.lists(TEXTS, max_size=5))
def test_a_screen_of_anything(pieces: list[str]) -> None:
    screen = Screen()
    for piece in pieces:
        screen.feed(piece)
        screen.sight(PROMPT)
    assert len(screen.text) <= 32 << 10
    shows_login_prompt(encoded("".join(pieces)))


@pytest.mark.parametrize("tail", ["", "\n", "] \n", "] "])
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "\r",
            "\n",
            "[",
            "[*",
            "[ *",
            "\x1b[",
            "\x1b[m",
            "\x1b[K[",
            "\x1b]",
            "[ OK ",
            "[    1.0000001] ",
            "<6>",
            " ",
            "]",
        ),
        *("login: ", "New ", "Changing password for ", "account ", "@", "9"),
    ],
)
def test_no_text_takes_long(unit: str, tail: str) -> None:
    # One that took quadratic time took minutes for so much.
    text = unit * ((128 << 10) // len(unit)) + tail
    Screen().feed(text)
    kept = text[: 20 << 10] + tail
    login_module._change_asked(kept)
    for pattern in (login_module._CLOSED, login_module._REFUSED, login_module._LATER):
        pattern.search(kept)
    for typed_line in typed.lines_of("true", "@0123456789ab"):
        typed_line.answer.search(text)


@settings(max_examples=10)
@given(TEXTS, st.booleans())
def test_a_login_to_anything(tmp_path_factory: pytest.TempPathFactory, said: str, again: bool) -> None:
    def part(actor: Actor) -> None:
        actor._guest.sendall(encoded(said))
        while True:
            actor.key()
            if again:
                actor._guest.sendall(encoded(said))

    with line(tmp_path_factory.mktemp("line"), IMAGE) as made, playing(made.guest, part):
        began = time.monotonic()
        with pytest.raises((ConsoleTimeout, LoginFailed)):
            made.console.login(timeout=0.3)
        with contextlib.suppress(ConsoleTimeout, ShellLost):
            made.console.run("true", timeout=0.1)
        assert time.monotonic() - began < LIMIT


# Floods


@contextmanager
def flooding(guest: socket.socket, piece: bytes = b"y\r\n" * 1000, *, pause: float = 0.0) -> Iterator[None]:
    """Let the guest print without end, and read what is typed."""

    def print_() -> None:
        with contextlib.suppress(OSError):
            while True:
                guest.sendall(piece)
                time.sleep(pause)

    def read() -> None:
        with contextlib.suppress(OSError):
            while guest.recv(1 << 16):
                pass

    threads = [threading.Thread(target=work, daemon=True) for work in (print_, read)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(LIMIT)


VERBS: dict[str, Callable[[Line], object]] = {
    "login": lambda made: made.console.login(timeout=0.3),
    "run": lambda made: made.console.run("yes", timeout=0.3),
    "expect": lambda made: made.console.expect("never", timeout=0.3),
    "expect_exact": lambda made: made.console.expect_exact("never", timeout=0.3),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("unit", [b"y\r\n", b"\r", b"[", b"\xff"])
def test_a_flood_does_not_outlast_a_deadline(
    tmp_path: Path, verb: str, unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue, "TEXT_LIMIT", 1 << 20)
    monkeypatch.setattr(console_module, "EXPECT_LIMIT", 1 << 18)
    with line(tmp_path, IMAGE) as made, flooding(made.guest, unit * 3000):
        began = time.monotonic()
        with pytest.raises((ConsoleTimeout, TooMuchOutput)):
            VERBS[verb](made)
        assert time.monotonic() - began < LIMIT


@pytest.mark.parametrize("verb", ["login", "run"])
def test_nor_does_one_that_we_never_catch_up_with(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()

    def read(_size: int, _timeout: float) -> str:
        assert time.monotonic() - began < LIMIT, "the deadline was not looked at"
        return "y\r\n"

    with line(tmp_path, IMAGE) as made:
        monkeypatch.setattr(made.console, "read_nonblocking", read)
        with pytest.raises(ConsoleTimeout):
            VERBS[verb](made)


def test_a_command_that_prints_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "TEXT_LIMIT", 1 << 20)
    with line(tmp_path) as made, flooding(made.guest), pytest.raises(TooMuchOutput) as caught:
        made.console.run("yes", timeout=LIMIT)
    assert str(caught.value) == (
        "VM 'vm': command printed more than 16 MiB on the console: 'yes'. Ctrl-C did not bring the prompt. "
        "Let it write to a file, or use vm.run()"
    )
    assert (caught.value.command, caught.value.limit) == ("yes", 16 << 20)


def test_what_is_expected_comes_after_a_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "EXPECT_LIMIT", 1 << 16)
    monkeypatch.setattr(serial, "UNREAD_LIMIT", 1 << 15)
    with line(tmp_path) as made:
        for number in range(200):
            made.print(f"{number:06}\r\n" * 500)
            with pytest.raises(ConsoleTimeout):
                made.console.expect("never", timeout=0)
        made.print("now\r\nafter")
        made.console.expect("now\r\n", timeout=LIMIT)
        before = made.console.before
        assert before is not None
        assert before.endswith("000199\r\n")
        assert 1 << 14 < len(before) <= 1 << 16
        made.console.expect_exact("after", timeout=LIMIT)


def rss() -> int:
    """Return how many bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("piece", "size"), [(b"x" * 79 + b"\r\n", 1 << 30), (b"\n", 1 << 26)], ids=["a gigabyte of lines", "newlines"]
)
def test_a_guest_that_never_stops(tmp_path: Path, piece: bytes, size: int) -> None:
    chunk = piece * ((1 << 18) // len(piece))
    watch = Watch()
    most = 0
    with closing(IOThread()) as io:
        port = SerialPort(io=io, watch=watch, log_path=tmp_path / "console.log")
        before = rss()
        total = 0
        with plugged(port) as theirs, closing(port):
            while total < size:
                theirs.sendall(chunk)
                total += len(chunk)
                most = max(most, rss())
            theirs.sendall(b"the end\r\n")
            total += 9
            assert watch.wait_only(lambda: port.received == total, Deadline(LIMIT))
            assert port.tail(1) == "the end"
            assert len(port.since(0)) == serial.UNREAD_LIMIT
            assert most - before < 200 << 20
    assert (tmp_path / "console.log").stat().st_size < serial.LOG_LIMIT + (16 << 20)


# A guest that does not listen


def test_nobody_reads_what_is_typed(tmp_path: Path) -> None:
    with line(tmp_path, IMAGE) as made:
        made.console.timeout = 0.3
        with pytest.raises(ConsoleTimeout, match=r"^VM 'vm': the guest did not read what was typed .*, for 0\.3 s"):
            made.console.send("x" * 10_000_000)
        for verb in (made.console.login, lambda timeout: made.console.run("true", timeout=timeout)):
            with pytest.raises(ConsoleTimeout):
                verb(timeout=0.2)
        assert not made.console.closed


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    with line(tmp_path) as made:
        made.guest.sendall(b"\xff\xfe \x80 caf\xc3\xa9 \xc3")
        made.guest.sendall(b"\xa9 end")
        made.console.expect_exact("end", timeout=LIMIT)
        assert made.console.before == "\\xff\\xfe \\x80 café é "
        assert made.console.send("\udcff") == 1  # a name of a file, say
        assert made.guest.recv(10) == b"\xff"


def test_each_byte_can_be_typed() -> None:
    for typed_line in typed.lines_of("echo \udcff > 'ä\udc80'", "@0123456789ab"):
        assert re.fullmatch(r"[ -~]+", typed_line.text)


def test_a_machine_that_goes_off_in_a_flood(tmp_path: Path) -> None:
    with line(tmp_path, IMAGE) as made:
        made.print("y\r\n" * 1000)
        made.guest.close()
        with pytest.raises(pexpect.EOF):
            made.console.login(timeout=LIMIT)
