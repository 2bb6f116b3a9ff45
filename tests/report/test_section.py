"""The lines in the terminal."""

from __future__ import annotations

from pytest_kvm.journal import Record
from pytest_kvm.report.section import LINES, section, share
from tests.report.conftest import Maker

CONSOLE = "".join(f"\x1b[32mline {number}\x1b[0m\r\n" for number in range(100))


def command(number: int, **more: object) -> Record:
    about: Record = {"time": "2026-01-02T03:04:05.678901+00:00", "command": f"echo {number}", "via": "shell, as root"}
    return {**about, "outcome": "ended", "status": 0, "seconds": 0.25, **more}


def test_everything(make: Maker) -> None:
    commands = [
        command(1),
        command(2, outcome="timeout", status=None, seconds=60.0),
        {**command(3), "command": "cat <<X\n\x1b[2Jevil\nX", "outcome": "started", "status": None, "seconds": None},
        command(4, command="y" * 500),
    ]
    made = section(make(console="one\r\ntwo\x07\r\n# ", commands=commands), lines=60, told="", place="results/vm")
    assert made.splitlines() == [
        "console is at:",
        "one",
        "two\\x07",
        "#",
        "last commands:",
        "  03:04:05   0.25 s  status 0   (shell, as root) echo 1",
        "  03:04:05  60.00 s  timeout    (shell, as root) echo 2",
        "  03:04:05           started    (shell, as root) cat <<X evil X",
        "  03:04:05   0.25 s  status 0   (shell, as root) " + "y" * 120 + "…",
        "everything: results/vm",
    ]


def test_nothing(make: Maker) -> None:
    assert section(make(console="\r\n"), lines=60, told="", place="") == ""


def test_there_is_an_end_to_it(make: Maker) -> None:
    evidence = make(console=CONSOLE, commands=[command(number) for number in range(20)])
    for machines in (1, 2, 3, 8):
        made = section(evidence, lines=share(machines), told="", place="x").splitlines()
        assert len(made) * machines <= LINES
        assert "line 99" in made
        assert "echo 19" in made[-2]


def test_what_an_error_tells_is_not_told_again(make: Maker) -> None:
    evidence = make(console=CONSOLE)
    error = "E   GuestPanic: Console is at:\n" + "".join(f"E   line {number}\n" for number in range(80, 100))
    assert section(evidence, lines=30, told=error, place="x") == "everything: x"
    partly = error.replace("E   line 98\nE   line 99\n", "")
    assert section(evidence, lines=30, told=partly, place="x").splitlines() == [
        "console, after what is shown above:",
        "line 98",
        "line 99",
        "everything: x",
    ]
    # A line in common is no more than an accident.
    made = section(evidence, lines=30, told="E   assert 'line 99' in x\nline 99\n", place="x")
    assert made.splitlines()[:3] == ["console is at:", "line 74", "line 75"]


def test_a_short_console_that_was_told(make: Maker) -> None:
    evidence = make(console="tiny login: \r\n")
    assert section(evidence, lines=30, told="Console is at:\ntiny login:", place="x") == "everything: x"


def test_commands_that_were_told(make: Maker) -> None:
    first = section(make(commands=[command(1)]), lines=30, told="", place="x")
    again = section(make(commands=[command(1), command(2)]), lines=30, told=first, place="x").splitlines()
    assert [line for line in again if "echo" in line] == ["  03:04:05   0.25 s  status 0   (shell, as root) echo 2"]
