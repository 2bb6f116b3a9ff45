"""Places in code, as kernels of all architectures print them."""

from __future__ import annotations

import pytest

from pytest_kvm.kernel.traces.places import Place, place_of, places_of


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (" vfs_write+0x235/0x3f0", Place("vfs_write", 0x235, 0x3F0)),
        ("[    5.1]  vfs_write+0x235/0x3f0", Place("vfs_write", 0x235, 0x3F0)),
        ("[    5.1][   T17]  ? set+0x2d/0x32 [faulty]", Place("set", 0x2D, 0x32, "faulty")),
        (
            " set.isra.0+0x2d/0x32 [faulty 0123456789abcdef0123456789abcdef01234567]",
            Place("set.isra.0", 0x2D, 0x32, "faulty", "0123456789abcdef0123456789abcdef01234567"),
        ),
        (" [<ffffffff81234567>] vfs_write+0x235/0x3f0", Place("vfs_write", 0x235, 0x3F0)),
        ("RIP: 0010:set+0x5/0x20 [faulty]", Place("set", 5, 0x20, "faulty", exact=True)),
        ("RIP: 0010:[<ffffffffa0001005>]  [<ffffffffa0001005>] set+0x5/0x20", Place("set", 5, 0x20, exact=True)),
        ("EIP: set+0x5/0x20", Place("set", 5, 0x20, exact=True)),
        ("pc : set+0x10/0x20 [faulty]", Place("set", 0x10, 0x20, "faulty", exact=True)),
        ("lr : set+0x10/0x20 [faulty]", Place("set", 0x10, 0x20, "faulty")),
        ("PC is at set+0x10/0x20", Place("set", 0x10, 0x20, exact=True)),
        ("epc : set+0x10/0x20", Place("set", 0x10, 0x20, exact=True)),
        ("NIP [c0000000000a1b2c] set+0x10/0x20", Place("set", 0x10, 0x20, exact=True)),
        ("LR [c0000000000a1b2c] set+0x10/0x20", Place("set", 0x10, 0x20)),
        ("Krnl PSW : 0704c00180000000 000003ff (set+0x10/0x20)", Place("set", 0x10, 0x20, exact=True)),
        ("IP: set+0x10/0x20", Place("set", 0x10, 0x20, exact=True)),
        (" set+0x10/0x20 (P)", Place("set", 0x10, 0x20)),
        ("[<c0a1>] (a) from [<c09f>] (probe+0x1c0/0x3a0)", Place("probe", 0x1C0, 0x3A0)),
        ("BUG: KASAN: slab-out-of-bounds in set+0x10/0x20 [faulty]", Place("set", 0x10, 0x20, "faulty")),
        (" #0: c1 (&lock){+.+.}-{3:3}, at: set+0x10/0x20", Place("set", 0x10, 0x20)),
        ("WARNING: CPU: 0 PID: 145 at drivers/faulty.c:19 warn+0x5/0xc [faulty]", None),
        (" do_initcalls+0x12", None),
        ("RSP: 0018:ffffce82c0613a60 EFLAGS: 00000246", None),
        ("", None),
    ],
)
def test_places(line: str, place: Place | None) -> None:
    assert place_of(line) == place


def test_the_top_of_the_call_trace() -> None:
    """arm64 begins it with what is executed."""
    lines = [
        "pc : set+0x10/0x20 [faulty]",
        "lr : next+0x8/0x40",
        "Call trace:",
        " set+0x10/0x20 [faulty]",
        " next+0x8/0x40",
    ]
    exact = [place.exact if place is not None else None for place in places_of(lines)]
    assert exact == [True, False, None, True, False]
