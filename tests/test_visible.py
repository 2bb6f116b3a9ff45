"""What strangers wrote does nothing to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_kvm import errors
from pytest_kvm.errors import CommandError, KVMError
from pytest_kvm.visible import visible

# What hypothesis would seldom write: whole and broken escape sequences.
PIECES = st.sampled_from(
    [
        *(
            "\x1b",
            "\x1b[",
            "\x1b[31m",
            "\x1b[2J",
            "\x1b]0;title\x07",
            "\x1b]52;c;",
            "\x1b\\",
            "\x1bP",
            "\x1bc",
            "\x9b1m",
        ),
        *("\r", "\r\r\n", "\n", "\t", "\b", "\x7f", "\u202e", "\u2028", "\udc80", "\ud800", "\U0001f600", "plain", "ä"),
    ]
)
HOSTILE = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=20).map("".join)


@given(HOSTILE)
@example("\x1b\x1b[m[2J")
def test_nothing_reaches_the_terminal_but_what_it_prints(text: str) -> None:
    shown = visible(text)
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert visible(shown) == shown
    shown.encode()  # as it is for a worker of xdist, and for a file


@given(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" \n\t")))
def test_what_is_printable_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[\x1b[0;32m  OK  \x1b[0m] Started", "[  OK  ] Started"),
        ("\x1b]0;bob@vm\x07$ ", "$ "),
        ("one\r\ntwo\r\r\n", "one\ntwo\n"),
        ("50%\r100%", "50%\\r100%"),
        ("\x1b]0;hidden\nKernel panic\x07", "\\x1b]0;hidden\nKernel panic\\x07"),
        ("\x1b", "\\x1b"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("disk\udcff.img", "disk\\udcff.img"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["\r" * 200_000, "\x1b]" * 100_000, "\x1b[" * 100_000, "\x1b[" + "0" * 200_000])
def test_no_text_takes_long(text: str) -> None:
    assert "\x1b" not in visible(text)  # one that took quadratic time would take minutes


def every(kind: type[KVMError]) -> list[type[KVMError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every(sub))]


@pytest.mark.parametrize("kind", [each for each in every(KVMError) if each.__module__ == errors.__name__])
def test_errors_are_made_of_it(kind: type[KVMError]) -> None:
    needed: dict[str, object] = {
        "timeout": 1.0,
        "command": "c",
        "returncode": 1,
        "stdout": "",
        "stderr": "",
        "user": "u",
        "remote": "r",
    }
    needed |= {"drive": "d", "reason": "r", "nospace": False, "limit": 1, "hint": "h"}
    needed |= {"memory": 1, "vcpus": 1, "machines": 1, "holders": (), "failed": (), "problems": ()}
    needed |= {"device": "d", "asked": 1, "actual": 1}
    code = kind.__init__.__code__
    names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    given_ = {name: needed[name] for name in names if name in needed}
    if "error_class" in names:
        given_["error_class"] = "GenericError"
    error = kind("\x1b[31mred\x1b[0m \x1b[2", **given_)
    assert str(error).removesuffix("\n  h") == "red \\x1b[2"


def test_the_data_of_an_error_stay_as_they_came() -> None:
    error = CommandError("bad\x07", command="c", returncode=1, stdout="\x1b[1mout", stderr=b"\x1b[1merr")
    assert (str(error), error.stdout, error.stderr) == ("bad\\x07", "\x1b[1mout", b"\x1b[1merr")
