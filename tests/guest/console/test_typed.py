"""Commands typed at real shells on a terminal of 80 columns, with the kernel talking all the time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_kvm.errors import CommandError, ConsoleTimeout, ShellLost
from pytest_kvm.guest.console import dialogue
from pytest_kvm.guest.console import typed as module
from pytest_kvm.guest.console.console import Console
from pytest_kvm.guest.console.typed import lines_of
from pytest_kvm.visible import visible
from tests.guest.console.terminals import KERNEL, LIMIT, SYSTEMD, Actor, line, playing, shell_on_terminal

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "dash": ["dash", "-i"],
    "ash": ["busybox", "ash", "-i"],
}
LONG = "".join(f"word{number} " for number in range(550))
COMMANDS = [
    ("id", "id -u >/dev/null", 0, ""),
    ("status", "sh -c 'exit 9'", 9, ""),
    ("no-newline", "printf abc", 0, "abc"),
    ("quotes", """echo "it's" 'a "word"' '\\' "$((6 * 7))" `echo b`""", 0, 'it\'s a "word" \\ 42 b\n'),
    ("history", "echo 'a!b' !c \"d!\"", 0, "a!b !c d!\n"),
    ("percent", "echo '%s%%' -n", 0, "%s%% -n\n"),
    ("dash", "-x 2>/dev/null\necho '!'", 0, "!\n"),
    ("unicode", "echo 'grüß Gott, 你好 🙂'", 0, "grüß Gott, 你好 🙂\n"),
    ("tab", "echo 'a\tb'", 0, "a\tb\n"),
    ("lines", "for i in 1 2; do\n  echo $i # one\ndone\n\n", 0, "1\n2\n"),
    ("document", "cat <<END\nhere $((1 + 1))\nEND", 0, "here 2\n"),
    ("comment", "echo a # and a comment", 0, "a\n"),
    ("comment-only", "# nothing", 0, ""),
    ("backslash", "echo a \\", 0, None),
    ("empty", "", 0, ""),
    ("brace", "echo }", 0, "}\n"),
    ("parenthesis", "echo ')'", 0, ")\n"),
    ("background", "true & wait", 0, None),
    ("syntax", "echo )(", 2, None),
    ("unfinished", "echo 'a", 2, None),
    ("missing", "no-such-command", 127, None),
    ("exit", "exit 3", 3, ""),
    ("exit-late", "echo a\nfalse || exit 4\necho b", 4, "a\n"),
    ("errexit", "set -eu; false; echo b", 1, ""),
    ("signal", "sh -c 'kill -TERM $$'", 143, None),
    ("carriage-return", r"printf 'a\rb\r\nc\n'", 0, "a\rb\r\nc\n"),
    ("stderr", "echo a >&2", 0, "a\n"),
    ("long", f"echo {LONG}| wc -c", 0, f"{len(LONG)}\n"),
    ("long-special", f"""echo "{LONG}" 'it' "'s" | wc -w # ü\nexit 5""", 5, "552\n"),
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 0.2)
    monkeypatch.setattr(dialogue, "_SETTLE_QUIET", 0.2)


@pytest.fixture(params=[name for name, command in SHELLS.items() if shutil.which(command[0])])
def shell(request: pytest.FixtureRequest) -> list[str]:
    return SHELLS[request.param]


@contextmanager
def at_prompt(
    tmp_path: Path, shell: list[str], change: Callable[[bytes], bytes] = bytes, *, columns: int = 80
) -> Iterator[Console]:
    with line(tmp_path) as made, shell_on_terminal(made.guest, shell, change=change, columns=columns):
        made.console.login(timeout=LIMIT)
        yield made.console


def once(pattern: bytes, noise: str) -> Callable[[bytes], bytes]:
    """Return what prints ``noise`` behind the first occurrence of the pattern."""
    done = False

    def change(data: bytes) -> bytes:
        nonlocal done
        match = re.search(pattern, data)
        if done or match is None:
            return data
        done = True
        return data[: match.end()] + noise.encode() + data[match.end() :]

    return change


def every(size: int, noise: str) -> Callable[[bytes], bytes]:
    """Return what prints ``noise`` behind each ``size`` bytes."""

    def change(data: bytes) -> bytes:
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        return b"".join(piece + noise.encode() for piece in pieces)

    return change


def test_commands(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console:
        for name, command, status, output in COMMANDS:
            result = console.run(command, timeout=LIMIT)
            assert (name, result.returncode) == (name, status), result
            assert output is None or (name, result.stdout) == (name, output)
            assert (result.command, result.stderr) == (command, "")


@pytest.mark.parametrize("columns", [0, 20])
def test_the_width_does_not_matter(tmp_path: Path, shell: list[str], columns: int) -> None:
    with at_prompt(tmp_path, shell, columns=columns) as console:
        assert console.run(f"echo {'x' * 200}; false").stdout == "x" * 200 + "\n"
        assert console.run(f"echo {LONG}| wc -w", timeout=LIMIT).stdout == "550\n"


def test_messages_in_the_middle_of_everything(tmp_path: Path, shell: list[str]) -> None:
    noise = KERNEL + SYSTEMD
    with at_prompt(tmp_path, shell, every(5, noise)) as console:
        for name, command, status, output in COMMANDS:
            result = console.run(command, timeout=LIMIT)
            assert result.returncode == status, result
            if output is None or name == "unicode":  # the kernel does not mind characters
                continue
            text = result.stdout.replace(noise.replace("\r\n", "\n"), "")
            assert text.replace("\r", "") == output.replace("\r", "")


@pytest.mark.parametrize(
    "place", [rb"\w{12}-beg(?=in\r)", rb"\w{12}-en(?=d-\d)", rb"\w{12}-end-4", rb"\w{12}-3(?=00\.)", rb"\w{12}-end-42"]
)
def test_a_message_that_nothing_tells_from_output(tmp_path: Path, place: bytes) -> None:
    noise = "7 random: crng init done\r\n"
    with at_prompt(tmp_path, SHELLS["dash"], once(place, noise)) as console:
        long = "x" * 500
        result = console.run(f"echo {long}; exit 42", timeout=LIMIT)
        assert result.returncode == 42
        assert result.stdout.endswith(f"{long}\n")
        console.sendline("echo ready''now")
        console.expect_exact("readynow", timeout=LIMIT)
        assert "-end" not in str(console.before)


def test_the_shell_keeps_what_was_changed_in_it(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console:
        console.run("cd /usr; kept='it is here'; f() { echo f$1; }")
        assert console.run('pwd; echo "$kept"; f 1').stdout == "/usr\nit is here\nf1\n"
        console.run("cd /tmp; exit")
        assert console.run("pwd").stdout == "/usr\n"
        console.run("set -u")
        assert console.run("false").returncode == 1
        console.run("set -x")
        assert "a" in console.run("echo a").stdout.splitlines()
        console.run("set +x")
        console.run("stty -echo")
        assert console.run("echo b").stdout == "b\n"


def test_a_list_is_quoted_and_the_status_checked(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console:
        assert console.run(["echo", "a  b", "'", "$HOME"]).stdout == "a  b ' $HOME\n"
        assert console.run("exit 3", check=3).returncode == 3
        with pytest.raises(CommandError) as caught:
            console.run("echo so; exit 3", check=True)
    assert str(caught.value) == "VM 'vm': command returned status 3 (console): 'echo so; exit 3'\nstdout: so"
    with pytest.raises(ValueError, match="NUL"):
        console.run("a\0b")


def test_pexpects_verbs_before_and_after(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console:
        for number in range(3):
            console.sendline(f"echo $(({number} + 40))")
            console.expect(rf"{number + 40}\r\n", timeout=LIMIT)
            assert console.run(f"echo a; exit {number}").returncode == number
            assert console.before == "a\r\n"
            assert re.fullmatch(r"@\w{12}-end-\d\.", str(console.after))


def test_a_command_that_does_not_end(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console:
        for command in ("echo began; sleep 100", "cat", "read line"):
            with pytest.raises(ConsoleTimeout) as caught:
                console.run(command, timeout=0.3)
            assert str(caught.value).startswith(
                f"VM 'vm': command did not end within 0.3 s on the console: '{command}'. "
                "Ctrl-C brought the prompt back. Console was at:\n"
            )
            assert console.run("echo usable").stdout == "usable\n"


def test_a_command_that_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERRUPT_PATIENCE", 0.2)
    with (
        at_prompt(tmp_path, SHELLS["dash"]) as console,
        pytest.raises(ConsoleTimeout, match=r"did not end within 3 s .*\. Ctrl-C did not bring the prompt\."),
    ):
        console.run("trap '' INT; sleep 100", timeout=3)


def test_the_shell_ends(tmp_path: Path, shell: list[str]) -> None:
    with at_prompt(tmp_path, shell) as console, pytest.raises(ShellLost) as caught:
        console.run("exec true", timeout=LIMIT)
    assert str(caught.value) == (
        f"VM 'vm': the console's shell ended with the command 'exec true'. Console is at:\n{visible(console.tail())}"
    )
    assert caught.value.command == "exec true"


@pytest.mark.parametrize("prompt", ["vm login: ", "Password: "])
def test_nobody_is_logged_in(tmp_path: Path, prompt: str) -> None:
    def play(actor: Actor) -> None:
        actor.line()
        actor.print(prompt)
        actor.key()

    with line(tmp_path) as made, playing(made.guest, play), pytest.raises(ShellLost) as caught:
        made.console.run("true")
    shown = "a login prompt" if "login" in prompt else "a password prompt"
    assert str(caught.value) == (
        f"VM 'vm': the console shows {shown} instead of a shell's: vm.console.login() comes before "
        f"vm.console.run('true'). Console is at:\n{made.console.tail()}"
    )


def test_nothing_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERRUPT_PATIENCE", 0.1)
    with line(tmp_path) as made, pytest.raises(ConsoleTimeout, match=r"did not start within 0\.2 s"):
        made.console.run("true", timeout=0.2)


@pytest.mark.parametrize("script", [command for _, command, _, _ in COMMANDS])
def test_each_line_can_be_typed(script: str) -> None:
    for typed in lines_of(script, "@0123456789ab"):
        assert len(typed.text) <= 512
        assert typed.text.isascii()
        assert typed.text.isprintable()
        assert not typed.answer.search(typed.text)
