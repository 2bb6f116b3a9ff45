"""A command's output up to its end mark."""

from __future__ import annotations

import io
import threading

import pytest

from pytest_kvm.errors import QEMUExited
from pytest_kvm.guest.shell.stream import Stream
from pytest_kvm.waiting import Watch

END = b"end-abc\n"


def stream(*pieces: bytes) -> Stream:
    made = Stream(END, Watch())
    for piece in pieces:
        made.feed(piece)
    return made


@pytest.mark.parametrize("output", [b"", b"hello\n", b"no newline", b"end-", b"end-abend-ab", b"\0\xff" * 3])
def test_the_mark_is_found_wherever_it_is_cut(output: bytes) -> None:
    whole = output + END
    for cut in range(len(whole) + 1):
        made = stream(whole[:cut], whole[cut:])
        assert made.complete
        assert made.everything() == output


@pytest.mark.parametrize("output", [b"", b"hello\n", b"end-abend-ab"])
def test_the_mark_arrives_byte_by_byte(output: bytes) -> None:
    made, seen = stream(), b""
    for byte in output + END:
        assert not made.complete
        made.feed(bytes([byte]))
        seen += made.everything()
        assert output.startswith(seen)  # nothing of the mark is ever shown
    assert made.complete
    assert seen == output


def test_what_follows_the_mark_is_ignored() -> None:
    made = stream(b"out" + END + b"late", b"later", END)
    assert made.complete
    assert made.everything() == b"out"
    assert made.everything() == b""


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"text"], b"text"),
        ([b"text e"], b"text "),
        ([b"text end-abc"], b"text "),
        ([b"text end-abc", b"d"], b"text end-abcd"),
        ([b"text end-abc", b"e"], b"text end-abc"),
        ([b"end-", b"end-"], b"end-"),
    ],
)
def test_a_beginning_of_the_mark_is_held_back_until_it_is_none(pieces: list[bytes], shown: bytes) -> None:
    made = stream(*pieces)
    assert not made.complete
    assert made.everything() == shown


def test_abandoned_it_shows_what_there_is() -> None:
    made = stream(b"text end-ab")
    assert made.everything() == b"text "
    made.abandon()
    assert made.complete
    assert made.everything() == b"end-ab"
    made.feed(b"more")
    assert made.everything() == b""


def test_reading_as_a_file() -> None:
    made = stream(b"one\ntwo\nthr", b"ee\n" + END)
    assert made.readable()
    with io.BufferedReader(made) as file:
        assert file.readline() == b"one\n"
        assert file.read() == b"two\nthree\n"
        assert file.read() == b""


def test_a_small_buffer_gets_a_part() -> None:
    made = stream(b"abcdef" + END)
    buffer = bytearray(4)
    assert made.readinto(buffer) == 4
    assert buffer == b"abcd"
    assert made.readinto(buffer) == 2
    assert buffer == b"efcd"
    assert made.readinto(buffer) == 0


def test_a_reader_waits_for_more() -> None:
    made = stream(b"e")
    lines: list[bytes] = []
    with io.BufferedReader(made) as file:
        reader = threading.Thread(target=lambda: lines.extend(file), daemon=True)
        reader.start()
        for piece in (b"nd\n", b"secon", b"d\nen", b"d-abc", b"\n"):
            made.feed(piece)
        reader.join(10)
        assert not reader.is_alive()
    assert lines == [b"end\n", b"second\n"]


def test_the_machines_end_ends_a_read_but_not_before_all_was_read() -> None:
    watch = Watch()
    made = Stream(END, watch)
    made.feed(b"last words")
    watch.fail(lambda: QEMUExited("gone"))
    buffer = bytearray(100)
    assert made.readinto(buffer) == 10
    with pytest.raises(QEMUExited, match="gone"):
        made.readinto(buffer)


def test_output_that_nobody_wants_is_not_kept() -> None:
    made = Stream(END, Watch(), keep=False)
    for _ in range(100):
        made.feed(b"y\n" * 1000)
        assert len(made.everything()) <= len(END)
    made.feed(b"y\nend-")
    made.feed(b"abc\nlate")
    assert made.complete
