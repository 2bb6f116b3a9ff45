"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_kvm.plugin.options import Options
from pytest_kvm.spec.fields import CHECKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert match is not None
    return match[1]


def test_first_test_is_the_first_example() -> None:
    example = (ROOT / "examples" / "test_first.py").read_text()
    assert block("python") == "import pytest\n" + example.partition("import pytest\n")[2]


def test_every_field_and_option_is_there() -> None:
    for field in CHECKS:
        if field != "name":
            assert f"`{field}`" in README
    for option in Options.__dataclass_fields__:
        assert f"--kvm-{option.replace('_', '-')}" in README


def test_ci_runs_the_readmes_test_command() -> None:
    commands = block("sh").splitlines()
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()
