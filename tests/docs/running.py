"""Run a page of the documentation as a reader would: write its files, type its commands, look at what is shown."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
import yaml

from tests.docs.pages import COMMANDS, SAID, Block
from tests.qemu.fakes import program

# Programs that change more than a folder: the commands that name them are run, and they do nothing.
HARMLESS = ("sudo", "apt-get", "pip", "tox", "podman", "git", "make")
# What a reader types where a command asks for it.
KEYS: list[Any] = [
    ("Enter ends them and goes on", "\r"),
    (r"Ctrl-\] ends", "\x1d"),
    (r"Ctrl-\] leaves", "\x1d"),
    (r"Ctrl-C ends it", "\x03"),
    (r"go on\? \[y/N\]", "n\r"),
]
# What stands for images that would have to be fetched.
_CATALOGUE = """
from dataclasses import replace
from pytest_kvm.images.published import find_published
from pytest_kvm.images.publishers import PUBLISHERS

def pytest_kvm_images(config):
    cirros = replace(find_published("cirros", PUBLISHERS).image, disk={disk!r}, format=None, name="cirros")
    return {{"cirros": cirros, "debian:13": cirros}}
"""
# What readers know how to do: fragments leave it out.
_IMPORTS = "import pytest\nfrom pytest_kvm import *\n"
_TIMEOUT = 600  # the host may be busy, and one command runs all tests of a page
_PYTEST = "pytest -rA -p no:cacheprovider"


class Reader:
    """A reader with a folder, in which a page is followed block by block."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder / "page"
        self.folder.mkdir()
        self._stubs = folder / "stubs"
        for name in HARMLESS:
            program(self._stubs / name, "exit 0\n")
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self._stubs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "COLUMNS": "120",
            "TERM": "dumb",
            "HOME": str(folder),
            "PYTEST_ADDOPTS": "--color=no --kvm-strict --strict-markers -W error",
            **variables,
        }
        self._unread: list[str] = []
        self.shown = ""

    def provide(self, disk: Path) -> None:
        """Let images of the catalogue, and the files that pages name as a reader's own, be this one of CirrOS."""
        (self.folder / "build").mkdir()
        for name in ("appliance.qcow2", "build/appliance-1.qcow2"):
            shutil.copy(disk, self.folder / name)
        (self._stubs / "catalogue.py").write_text(_CATALOGUE.format(disk=str(disk)))
        self._environment["PYTHONPATH"] = str(self._stubs)
        self._environment["PYTEST_ADDOPTS"] += " -p catalogue"

    def follow(self, blocks: Sequence[Block]) -> None:
        """Do what the blocks say, in their order; raises AssertionError where they are not true."""
        for number, block in enumerate(blocks):
            if block.language == SAID:
                self._read_on(block, blocks[number - 1])
            elif block.file or block.language not in COMMANDS:
                self._write(block, number)
            else:
                coming = blocks[number + 1 : number + 2]
                self._type(block, {0, 1} if coming and coming[0].language == SAID else {0})
        self._run_tests(self._unread)

    def _read_on(self, said: Block, before: Block) -> None:
        """Look for what is said to be shown: by a test that fails, or by a command."""
        if before.language == "python":
            *others, last = self._unread
            self._run_tests(others)
            self._run(f"{_PYTEST} {last}", {1, 2})
        self._look_for(said.text.splitlines(), said)

    def _write(self, block: Block, number: int) -> None:
        name = block.file or (f"test_block_{number}.py" if block.language == "python" else "")
        assert name, f"line {block.line}: which file is that?"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fragment = block.language == "python" and re.search("^(import|from) ", block.text, re.MULTILINE) is None
        path.write_text((_IMPORTS if fragment else "") + block.text, encoding="utf-8")
        if block.language == "sh":
            path.chmod(0o755)
        if path.name.startswith("test_"):
            self._unread.append(name)
        if block.language == "yaml":
            self._run_workflow(path)

    def _run_tests(self, files: Sequence[str]) -> None:
        if files:
            self._run(f"{_PYTEST} {shlex.join(files)}", {0})

    def _run_workflow(self, path: Path) -> None:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "run" in step:
                    self._run(step["run"], {0})

    def _type(self, block: Block, statuses: set[int]) -> None:
        if block.language == "sh":
            for line in block.text.replace("\\\n", "").splitlines():
                if line and not line.startswith("#"):
                    self._run(line, statuses)
            return
        for part in block.text.split("$ ")[1:]:
            command, _, said = part.partition("\n")
            self._run(command, {0})
            self._look_for(said.splitlines(), block)

    def _run(self, command: str, statuses: set[int]) -> None:
        done: tuple[Any, Any] = pexpect.run(
            # Ctrl-C is the command's, as at a terminal; the shell lives on.
            shlex.join(["/bin/sh", "-c", f"trap : INT\n{command}"]),
            timeout=_TIMEOUT,
            withexitstatus=True,
            events=KEYS,
            cwd=self.folder,
            env=self._environment,
            encoding="utf-8",
        )
        self.shown, status = done
        if "pytest" in command:
            self._unread.clear()
        assert status in statuses, f"{command!r} ends with status {status}:\n{self.shown}"

    def _look_for(self, lines: Sequence[str], block: Block) -> None:
        """Find the lines, in their order, in what was shown; ``…`` stands for anything, a number for any other one."""
        shown = iter(self.shown.splitlines())
        for line in lines:
            if line.strip() not in ("", "…"):
                pattern = _pattern(line)
                found = any(re.fullmatch(pattern, candidate.strip()) for candidate in shown)
                assert found, f"line {block.line}: not shown in its place: {line!r}\n{self.shown}"


def _pattern(line: str) -> str:
    text = re.escape(line.strip())
    text = re.sub(r"/tmp/pytest\\-kvm\\-\w{8}", r"\\S+/pytest-kvm-…", text)
    text = re.sub(r"\b[0-9a-f]{10}\b", "…", text)
    for meant, pattern in (
        (r"…", ".*"),
        (r"\d+", r"\\d+"),
        (r"(\\ )+", r"\\s+"),
        (r"=+", "=+"),
        (r"_{3,}", "_+"),
        (r"(\\-){3,}", "-+"),
    ):
        text = re.sub(meant, pattern, text)
    return text
