"""The console's wire: drained, logged, readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kvm.errors import QEMUExited
from pytest_kvm.guest.console import serial as module
from pytest_kvm.waiting import Deadline
from tests.guest.console.wires import Wire, laid, plugged

STAMP = re.compile(rb"^\d\d:\d\d:\d\d\.\d{6} ", re.MULTILINE)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with laid(tmp_path) as made:
        yield made


def test_what_the_guest_prints_is_read_in_parts(wire: Wire) -> None:
    wire.print(b"hello\r\n", b"world")
    assert wire.port.read(4, Deadline(10)) == b"hell"
    assert wire.port.read(100, Deadline(10)) == b"o\r\nworld"
    assert wire.port.read(100, Deadline(0)) is None


def test_what_is_typed_arrives(wire: Wire) -> None:
    wire.port.write(b"root\r", Deadline(10))
    assert wire.guest.recv(100) == b"root\r"


def test_a_machine_that_goes_off(wire: Wire) -> None:
    wire.print(b"last words")
    wire.guest.close()
    assert wire.watch.wait_only(lambda: not wire.port.open, Deadline(10))
    assert wire.port.read(100, Deadline(10)) == b"last words"
    assert wire.port.read(100, Deadline(None)) == b""
    with pytest.raises(BrokenPipeError, match="the machine is off"):
        wire.port.write(b"x", Deadline(10))


def test_a_failure_is_raised_after_the_last_output(wire: Wire) -> None:
    wire.print(b"last words")
    wire.watch.fail(lambda: QEMUExited("gone"))
    assert wire.port.read(100, Deadline(10)) == b"last words"
    with pytest.raises(QEMUExited, match="gone"):
        wire.port.read(100, Deadline(None))


def test_each_line_of_the_log_has_one_time(wire: Wire) -> None:
    wire.print(b"one\r\ntw", b"o\r", b"\nthree\n", b"\xff progress\r50%\r", b"end")
    log = wire.log()
    assert STAMP.sub(b"", log) == b"one\r\ntwo\r\nthree\n\xff progress\r50%\rend"
    assert len(STAMP.findall(log)) == 4
    assert wire.port.all_logged


def test_the_tail_counts_what_was_read_too(wire: Wire) -> None:
    wire.print(b"".join(b"line %d  \r\n" % number for number in range(30)), b"> ")
    wire.port.read(1 << 20, Deadline(10))
    assert wire.port.tail(3) == "line 28\nline 29\n>"
    assert len(wire.port.tail().splitlines()) == 20


def test_the_tail_is_for_a_terminal(wire: Wire) -> None:
    wire.print(b"\x1b[0;32m[  OK  ]\x1b[0m up\r\n", b"\x1b]0;title\x07\x1b[2J\x9b\xff\tend\x08\r\n")
    assert wire.port.tail() == "[  OK  ] up\n\\x9b\\xff\tend\\x08"
    assert b"\x1b[2J" in wire.log()


def test_since_a_position(wire: Wire) -> None:
    wire.print(b"before ")
    position = wire.port.received
    wire.print(b"after")
    assert wire.port.since(position) == b"after"
    assert wire.port.since(0) == b"before after"
    wire.port.read(9, Deadline(10))
    assert wire.port.since(position) == b"ter"
    assert wire.port.since(0) == b"ter"
    assert wire.port.since(100) == b""


def test_nobody_reads_and_nothing_blocks(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREAD_LIMIT", 1000)
    wire.print(*[b"%06d\n" % number for number in range(300)])
    assert wire.port.received == 2100
    unread = wire.port.read(1 << 20, Deadline(10))
    assert unread is not None
    assert len(unread) == 1000
    assert unread.endswith(b"000299\n")
    assert STAMP.sub(b"", wire.log()).startswith(b"000000\n000001\n")


def test_the_log_has_a_limit_and_says_so(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 30)
    wire.print(b"12345\n", b"67890\n", b"more\n", b"and more\n")
    assert STAMP.sub(b"", wire.log()) == b"12345\n67890\n\n[the log ends here: 30 bytes]\n"
    assert not wire.port.all_logged
    assert wire.port.read(100, Deadline(10)) == b"12345\n67890\nmore\nand more\n"


def test_a_machine_that_is_switched_on_again(wire: Wire) -> None:
    wire.print(b"first run\n")
    wire.guest.close()
    assert wire.watch.wait_only(lambda: not wire.port.open, Deadline(10))
    position = wire.port.received
    with plugged(wire.port) as guest:
        again = wire._replace(guest=guest)
        again.print(b"second run\n")
        assert wire.port.open
        assert wire.port.since(position) == b"second run\n"
    assert STAMP.sub(b"", wire.log()) == b"first run\nsecond run\n"
