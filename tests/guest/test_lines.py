"""Lines of a guest, which may be endless."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.guest.lines import Lines

LIMIT = 5
PIECES = st.lists(st.lists(st.sampled_from([b"a", b"\n", b"\0", b"\xff"]), max_size=12).map(b"".join), max_size=8)


@given(PIECES)
def test_lines_are_the_same_however_they_arrive(pieces: list[bytes]) -> None:
    lines = Lines(LIMIT)
    found = [line for piece in pieces for line in lines.feed(piece)]
    *whole, rest = b"".join(pieces).split(b"\n")
    expected = [line if len(line) <= LIMIT else None for line in whole] + ([None] if len(rest) > LIMIT else [])
    assert found == expected


def test_of_an_endless_line_nothing_is_kept() -> None:
    lines = Lines(100)
    piece = b"x" * (1 << 16)
    tracemalloc.start()
    try:
        found = [line for _ in range(1000) for line in lines.feed(piece)]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert found == [None]
    assert lines.feed(b"x\nnext\n") == [b"next"]
