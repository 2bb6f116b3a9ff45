"""Evidence in a folder."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.report.command import command_text
from pytest_kvm.report.saving import move, save
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.plans import plan
from tests.report.conftest import Maker


def test_all_files(make: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "vm"
    assert save(make(), folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["command.txt", "console.log", "qmp.jsonl", "spec.json"]
    assert (folder / "qmp.jsonl").read_text() == "1\n2\n3\n"
    assert (folder / "console.log").read_bytes() == b"12:00:00 \x1b[31mraw\xff\n"
    assert json.loads((folder / "spec.json").read_text())["name"] == "vm"


def test_again_in_place_of_what_was_there(make: Maker, tmp_path: Path) -> None:
    evidence, folder = make(), tmp_path / "results"
    save(evidence, folder)
    evidence.files["console.log"][0].write_text("short\n")
    save(evidence, folder)
    assert (folder / "console.log").read_text() == "short\n"
    assert (folder / "qmp.jsonl").read_text() == "1\n2\n3\n"


def test_put_aside(make: Maker, tmp_path: Path) -> None:
    evidence = make()
    moved = move(evidence, tmp_path / "aside" / "0")
    assert [path for parts in evidence.files.values() for path in parts if path.exists()] == []
    assert save(moved, tmp_path / "results") == []
    assert (tmp_path / "results" / "qmp.jsonl").read_text() == "1\n2\n3\n"


def test_the_end_of_a_flood(make: Maker, tmp_path: Path) -> None:
    save(make(all_logged=False, console="Kernel panic\n"), tmp_path / "results")
    text = (tmp_path / "results" / "console.log").read_bytes()
    assert text.endswith(b"raw\xff\n[and this is the end]\nKernel panic\n")


def test_each_file_has_its_own_trouble(make: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (folder / "command.txt").mkdir(parents=True)
    (folder / "qmp.jsonl").symlink_to("/dev/full")
    assert save(make(troubles=["commands.jsonl: No space left on device"]), folder) == [
        "commands.jsonl: No space left on device",
        f"{folder / 'command.txt'}: Is a directory",
        f"{folder / 'qmp.jsonl'}: No space left on device",
    ]
    assert (folder / "console.log").exists()
    assert (folder / "spec.json").exists()


def test_a_folder_that_cannot_be(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert save(make(), tmp_path / "file" / "vm") == [f"{tmp_path / 'file' / 'vm'}: Not a directory"]


def test_the_command_is_a_script_for_a_shell(make: Maker, tmp_path: Path) -> None:
    # Whatever stands in it, a shell hands over just these words.
    words = ["-rtc", "base=utc", "-fw_cfg", 'name=opt/it,string=it\'s $HOME "x" #1', "-x", "two\nlines\n# three", "ä"]
    evidence = make()
    planned = plan(VMSpec(image=None, args=words))
    program = tmp_path / "qemu"
    program.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done\n')
    program.chmod(0o755)
    evidence = replace(evidence, plan=planned, binary=replace(evidence.binary, path=program), started=None)
    evidence = replace(evidence, command=["qemu", *words])
    script = tmp_path / "command.txt"
    script.write_text(command_text(evidence))
    printed = subprocess.run(["sh", str(script)], capture_output=True, check=True).stdout.decode()
    assert printed.split("\0")[-len(words) - 1 : -1] == words
    assert "-serial\0mon:stdio\0" in printed
    lines = script.read_text().splitlines()
    assert lines[:2] == ["# VM 'vm'. 'sh command.txt' starts it once more. QEMU was 7.2.0.", "# It did not come up."]
    assert "  -rtc base=utc \\" in lines
    original = lines[lines.index("") + 1 :]
    assert original[0] == "# The command line in the test, with descriptors, sockets and disks that are gone:"
    assert all(line.startswith("#") for line in original)


def test_paths_that_are_no_utf_8(make: Maker, tmp_path: Path) -> None:
    path = os.fsdecode(b"/k\xff")
    evidence = make(plan=plan(VMSpec(image=None), kernel=Path(path)))
    assert save(evidence, tmp_path / "results") == []
    assert b"-kernel '/k\xff'" in (tmp_path / "results" / "command.txt").read_bytes()


@pytest.mark.parametrize(
    ("kind", "said"), [("boot", "It was booted (no template), and"), ("clone", "It was a clone (no template), and")]
)
def test_how_it_came_up(make: Maker, kind: str, said: str) -> None:
    from pytest_kvm.machine.starting import Started

    assert said in command_text(make(started=Started(kind, 0.1, "no template")))
