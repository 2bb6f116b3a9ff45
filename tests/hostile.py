"""Values and names that nobody would give, for tests with hypothesis."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import strategies as st

from pytest_kvm import Drive, FromFixture, Nic
from pytest_kvm.spec.forward import Forward
from pytest_kvm.spec.image import Image

# Names of files, each of which a file can have.
FILE_NAMES = [
    *(
        "plain",
        "a,b",
        "a,,b",
        ",",
        "a b",
        " lead",
        "new\nline",
        "tab\t",
        "it's",
        'say "it"',
        "-dash",
        "--",
        "a=b",
        "=",
        "50%",
        "%n%s",
    ),
    *(
        "back\\slash",
        "semi;colon",
        "$HOME",
        "`id`",
        "a:b",
        "nbd:x",
        "json:{}",
        "{",
        "[1]",
        "#",
        "~",
        "*",
        "?",
        "ä",
        "\U0001f600",
    ),
    *(
        "x" * 255,
        "ä" * 127,
        "\udcff",
        "caf\udce9,x=\udc80",
        "\x1b[2J",
        "\x7f",
        "id=x,readonly=on",
        "on",
        "file=x",
    ),
]


class Unshowable:
    """Has no repr, and equals nothing."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, _: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


def nested() -> list[object]:
    """Return a list in a list, and so on."""
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    return deep


def endless() -> list[object]:
    """Return a list with itself in it."""
    made: list[object] = []
    made.append(made)
    return made


TEXTS = st.one_of(
    st.sampled_from(FILE_NAMES),
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "\0",
                "a\0b",
                "x" * 300,
                "²",
                "٣",
                "--4",
                "4,",
                ",4",
                "9" * 5000,
                "1e9",
                "0x10",
                "-1",
                "1." + "0" * 50,
            ),
            *(
                "256M",
                "1G,slots=4,maxmem=2G",
                "4,cores=2",
                "tcp::-:22",
                "udp::٣-:53",
                "order=c, menu=on",
                "splash=a\0b",
            ),
            *(
                "auto",
                "kvm",
                "tcg,thread=single",
                "q35",
                "none",
                "microvm",
                "\n",
                "(?i)x",
                "(",
                "a{99999999999}",
                "#!/bin/sh\n",
            ),
            *(
                "http://[",
                "https://h/x",
                "https://h/x#sha256=0",
                "nocloud",
                "ssh",
                "boot",
                "clone",
                "virtio-rng-pci,id=x",
            ),
        ]
    ),
)
NUMBERS = st.one_of(
    st.integers(), st.sampled_from([0, 1, 22, 65536, 2**31, 2**63, 10**30, 10**400, -(10**400)]), st.floats()
)
ODD = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            b"bytes",
            b"\xff",
            Path("x"),
            Path("a,b"),
            object,
            Forward,
            Drive,
            Nic,
            lambda: None,
        ),
        *(
            re.compile("x"),
            re.compile(b"x"),
            FromFixture("name"),
            range(3),
            {1},
            frozenset(),
            slice(1),
            ...,
            NotImplemented,
        ),
        *(Drive(size="1M"), Drive("a,b"), Nic(), Image("a,b"), 1j, Exception("x"), memoryview(b"x")),
    ]
)
VALUES = st.one_of(
    TEXTS,
    NUMBERS,
    ODD,
    st.recursive(
        TEXTS | NUMBERS | ODD,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | NUMBERS, inner, max_size=3),
        max_leaves=4,
    ),
)
