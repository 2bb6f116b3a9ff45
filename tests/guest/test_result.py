"""Scripts and what is said about their status."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_kvm.errors import CommandError
from pytest_kvm.guest.result import Check, Command, CompletedCommand, check_status, decoded, script_of, shorten


@pytest.mark.parametrize(
    ("command", "env", "cwd", "script"),
    [
        ("echo $HOME; exit 3", None, None, "echo $HOME; exit 3"),
        (["echo", "$HOME", "a b", "", "it's"], None, None, "echo '$HOME' 'a b' '' 'it'\"'\"'s'"),
        ("x", {}, None, "x"),
        ("x", {"A": "1", "_b2": "it is"}, None, "export A=1; export _b2='it is'; x"),
        ("x", None, "/a b", "cd -- '/a b' || exit; x"),
        ("x", {"A": ""}, "-", "export A=''; cd -- - || exit; x"),
    ],
)
def test_scripts(command: Command, env: Mapping[str, str] | None, cwd: str | None, script: str) -> None:
    assert script_of(command, env=env, cwd=cwd) == script


def test_a_shell_agrees(tmp_path: Path) -> None:
    folder = tmp_path / "-a 'b'"
    folder.mkdir()
    script = script_of(["printenv", "VALUE"], env={"VALUE": "1\n\"2\" '$3'"}, cwd=str(folder))
    result = subprocess.run(["sh", "-c", f"{script}; pwd"], capture_output=True, text=True, check=True)
    assert result.stdout == f"1\n\"2\" '$3'\n{folder}\n"
    # On the first line, so that line numbers in messages stay right.
    assert script.startswith("export VALUE='1\n")


def test_a_folder_that_is_not_there_ends_the_script(tmp_path: Path) -> None:
    script = script_of("echo went on", cwd=str(tmp_path / "nowhere"))
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode != 0, result.stdout) == (True, "")


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "ä"])
def test_names_that_no_shell_exports(name: str) -> None:
    with pytest.raises(ValueError, match=r"^env: '.*' is not a name that a shell can export$"):
        script_of("x", env={name: "1"})


@pytest.mark.parametrize(
    ("command", "env", "cwd"),
    [("a\0b", None, None), (["a", "\0"], None, None), ("a", {"B": "\0"}, None), ("a", None, "/\0")],
)
def test_nul_bytes(command: Command, env: Mapping[str, str] | None, cwd: str | None) -> None:
    with pytest.raises(ValueError, match=r"^a command cannot contain a NUL byte$"):
        script_of(command, env=env, cwd=cwd)


def check(
    status: int, expected: Check, *, out: str = "", err: str = "", internet: bool = False
) -> CompletedCommand[str]:
    result = CompletedCommand("cmd", status, out, err, 0.1)
    assert check_status(result, expected, name="vm", via="shell, as root", internet=internet) is result
    return result


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0, True), (0, False), (1, False), (255, False), (3, 3), (0, 0), (1, {0, 1}), (1, [0, 1]), (2, range(5))],
)
def test_expected_statuses(status: int, expected: Check) -> None:
    assert check(status, expected).returncode == status


@pytest.mark.parametrize(
    ("status", "expected", "words"),
    [
        (1, True, "returned status 1"),
        (1, 0, "returned status 1"),
        (0, 1, "returned status 0, expected 1"),
        (0, {2, 1, 10}, "returned status 0, expected 1, 2, 10"),
        (137, True, "returned status 137"),
    ],
)
def test_an_unexpected_status(status: int, expected: Check, words: str) -> None:
    with pytest.raises(CommandError) as caught:
        check(status, expected)
    assert str(caught.value) == f"VM 'vm': command {words} (shell, as root): 'cmd'"
    assert caught.value.returncode == status


def test_output_is_shown_and_kept() -> None:
    with pytest.raises(CommandError) as caught:
        check(1, True, out="to out\n", err="to err\nmore\n")
    assert str(caught.value).splitlines()[1:] == ["stdout: to out", "stderr: to err", "more"]
    error = caught.value
    assert (error.command, error.stdout, error.stderr) == ("cmd", "to out\n", "to err\nmore\n")


def test_only_the_end_of_much_output_is_shown() -> None:
    lines = [f"line {number}" for number in range(25)]
    with pytest.raises(CommandError) as caught:
        check(1, True, out="\n".join(lines))
    assert str(caught.value).splitlines()[1:] == ["stdout: … (5 lines before)", *lines[5:]]


def test_a_line_that_never_ends_is_cut() -> None:
    with pytest.raises(CommandError) as caught:
        check(1, True, err="x" * 50_000 + "end\n")
    first, shown = str(caught.value).splitlines()[1:]
    assert first == "stderr: … (42003 characters before)"
    assert shown == "x" * 7997 + "end"


def test_bytes_are_shown_as_text() -> None:
    with pytest.raises(CommandError) as caught:
        check_status(CompletedCommand("cmd", 1, b"\xffa\n", b" \n", 0.1), True, name="vm", via="shell", internet=False)
    assert str(caught.value).splitlines()[1:] == ["stdout: \\xffa"]
    assert caught.value.stdout == b"\xffa\n"


HINT = "The guest reaches nothing outside by default; vm(internet=True) opens the user network."


@pytest.mark.parametrize(
    ("err", "internet", "hinted"),
    [
        ("wget: bad address 'example.org'", False, True),
        ("ping: example.org: Temporary failure in name resolution", False, True),
        ("curl: (6) Could not resolve host: example.org", False, True),
        ("wget: bad address 'example.org'", True, False),
        ("wget: not found", False, False),
    ],
)
def test_a_name_that_does_not_resolve_gets_a_hint(err: str, internet: bool, hinted: bool) -> None:
    with pytest.raises(CommandError) as caught:
        check(1, True, err=err, internet=internet)
    assert (str(caught.value).splitlines()[-1] == HINT) is hinted


def test_shorten() -> None:
    assert shorten("it's\n") == '"it\'s\\n"'
    assert shorten("x" * 300) == f"'{'x' * 199}… (300 characters)"
    assert shorten("x" * 300, 10) == "'xxxxxxxxx… (300 characters)"


def test_decoded() -> None:
    assert decoded("ä\0\n".encode() + b"\xff\xc3") == "ä\0\n\\xff\\xc3"
