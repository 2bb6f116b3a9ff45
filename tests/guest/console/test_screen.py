"""What stands on the console."""

from __future__ import annotations

import re

import pytest

from pytest_kvm.guest.console.screen import Screen, Sight, interrupted, shell_prompt, shows_login_prompt
from tests.guest.console.terminals import CALLER, KERNEL, STARTING, SYSTEMD, WAITING

NOISES = [KERNEL, CALLER, SYSTEMD, STARTING, WAITING]


def sight(text: str, prompt: str = "[$#] ", size: int = 1000) -> Sight | None:
    screen = Screen()
    for start in range(0, len(text), size):
        screen.feed(text[start : start + size])
    return screen.sight(shell_prompt(prompt))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\r\nvm login: ", Sight.LOGIN),
        ("login:", Sight.LOGIN),
        ("Last login: ", None),
        ("vm login: root", None),
        ("vm login: \r\n", None),
        ("vm login: root\r\nPassword: ", Sight.PASSWORD),
        ("[sudo] password for bob: ", Sight.PASSWORD),
        ("Password: \r\n", None),
        ("root@vm:~# ", Sight.SHELL),
        ("root@vm:~# \x1b[6n", Sight.SHELL),
        ("\x1b]0;bob@vm:~\x07\x1b[?2004h\x1b[01;32mbob@vm\x1b[00m:\x1b[01;34m~\x1b[00m$ ", Sight.SHELL),
        ("\x1b]3008;start=1;type=shell\x1b\\[bob@vm ~]$ \x1b[0m\x1b(B", Sight.SHELL),
        ("~ # ls\r\n", None),
        ("~ # \x1b[", None),
        ("~ # \x1b]0;title", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_prompts(text: str, seen: Sight | None, size: int) -> None:
    assert sight(text, size=size) is seen


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("text", ["\r\nvm login: ", "vm login: root\r\nPassword: ", "root@vm:~# ", "Last login: "])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_messages_are_no_part_of_a_prompt(text: str, noise: str, size: int) -> None:
    seen = sight(text)
    assert sight(text + noise, size=size) is seen
    assert sight(text + noise * 1000, size=1000) is seen
    assert sight(noise + text + noise, size=size) is seen
    for place in range(len(text)):
        assert sight(text[:place] + noise + text[place:], size=size) is seen


def test_a_message_that_is_being_printed() -> None:
    assert sight("vm login: [   12.345678] foo: ba") is Sight.LOGIN
    assert sight("vm login: [   12.3") is None


def test_a_prompt_of_ones_own() -> None:
    assert sight("\r\nrouter> ", prompt=r"^router> $") is Sight.SHELL
    assert sight("\r\na router> ", prompt=r"^router> $") is None
    assert sight("# ", prompt=r"=> ") is Sight.SHELL, "another user's"


@pytest.mark.parametrize("noise", ["", *NOISES])
def test_login_prompt_for_readiness(noise: str) -> None:
    assert shows_login_prompt(f"{noise}\xff vm login: {noise}".encode("latin1"))
    assert not shows_login_prompt(f"vm {noise}".encode())
    assert not shows_login_prompt(f"Last login: {noise}".encode())


@pytest.mark.parametrize("noise", NOISES)
def test_a_text_with_messages_in_it(noise: str) -> None:
    pattern = re.compile(interrupted("a.b"))
    assert pattern.search(f"x{noise}a{noise}.{noise}b")
    assert not pattern.search("a b")
    assert not pattern.search("a\r\n.b")
