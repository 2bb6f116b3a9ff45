"""The command itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from pytest_kvm.cli import main


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_as_a_module(option: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest_kvm", option], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stderr == ""
    if option == "--version":
        assert result.stdout == f"pytest-kvm {version('pytest-kvm')}\n"
    else:
        assert result.stdout.startswith("usage: pytest-kvm ")
        assert "doctor" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["physician"], ["doctor", "--instal=x"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: pytest-kvm" in capsys.readouterr().err
