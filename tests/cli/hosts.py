"""A host on which there is nothing but what a test puts there, and what the doctor says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_kvm.cli import main
from tests.qemu.fakes import ANSWERS, program


class Host(NamedTuple):
    """A host on which there is nothing but what a test puts there."""

    root: Path
    bin: Path
    shelf: Path
    log: Path
    capfd: pytest.CaptureFixture[str]

    def put(self, name: str, script: str = "") -> Path:
        return program(self.bin / name, script)

    def put_qemu(self) -> None:
        self.put("qemu-system-x86_64", ANSWERS)
        self.put("qemu-img")

    def put_apt(self, script: str = "") -> None:
        """Add a package manager that writes down what it is told and installs what is on the shelf."""
        copy = f"{shutil.which('cp', path='/usr/bin:/bin')} -p {self.shelf}/* {self.bin}"
        told = f'echo "$DEBIAN_FRONTEND: apt-get $*" >>{self.log}\necho unpacking\n{script}\n'
        self.put("apt-get", f'{told}if [ "$1" = install ]; then {copy}; fi\n')

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def doctor(self, *arguments: str) -> tuple[int, list[str], list[str]]:
        """Run the command; return its status and the lines of its stdout and stderr."""
        status = main(["doctor", *arguments])
        out, err = self.capfd.readouterr()
        return status, out.splitlines(), err.splitlines()

    def rows(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """Run the command; return its rows by name."""
        status, out, _ = self.doctor("--json", *arguments)
        told = json.loads("\n".join(out))
        assert told["ok"] is (status == 0)
        assert set(told) == {"ok", "rows"}
        return {row["name"]: row for row in told["rows"]}
