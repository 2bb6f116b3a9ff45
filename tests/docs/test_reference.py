"""The documentation is built without a warning, and its reference has everything that there is."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

import pytest_kvm
from pytest_kvm import host, images
from pytest_kvm.cli import make_parser
from pytest_kvm.spec.fields import CHECKS
from tests.docs.pages import DOCS, ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of its sources: what it warns of is an error."""
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", str(DOCS), str(output)]
    done = subprocess.run([*command, "-d", str(output / "doctrees")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return output


def text(site: Path, page: str) -> str:
    """Return what a page of the site says."""
    article = (site / f"{page}.html").read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return unescape(re.sub(r"<[^>]+>", "", article))


def test_every_option_and_its_twin(site: Path, pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest("--help").stdout.str()
    options = set(re.findall(r"^ +(--kvm-[\w-]+)", shown, re.MULTILINE))
    twins = set(re.findall(r"^ +(kvm_\w+) \(", shown, re.MULTILINE))
    assert len(options) > 15
    assert {option.removeprefix("--").replace("-", "_") for option in options} == twins
    said = text(site, "reference/options")
    assert set(re.findall(r"^(--kvm-[\w-]+)", said, re.MULTILINE)) == options
    assert set(re.findall(r"In the ini file: (kvm_\w+) ", said)) == twins


def test_every_fixture_and_marker(site: Path, pytester: pytest.Pytester) -> None:
    said = text(site, "reference/fixtures")
    fixtures = pytester.runpytest("--fixtures").stdout.str()
    names = set(re.findall(r"^(vm\w*)(?: \[\w+ scope\])? --", fixtures, re.MULTILINE))
    assert names >= {"vm", "vms", "vm_factory"}
    markers = set(re.findall(r"^@pytest\.mark\.(vm\w*)\(", pytester.runpytest("--markers").stdout.str(), re.MULTILINE))
    assert markers >= {"vm", "vm_parametrize"}
    assert {name for name in names if re.search(rf"^{name}¶$", said, re.MULTILINE) is None} == set()
    assert {name for name in markers if f"@pytest.mark.{name}(" not in said} == set()


def test_every_field(site: Path) -> None:
    said = text(site, "reference/declaration")
    table, _, _ = said.partition("In Python")
    assert {field for field in CHECKS if field != "name" and re.search(rf"\b{field}\b", table) is None} == set()


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands(command)


def test_every_command(site: Path) -> None:
    said = text(site, "reference/commands")
    parsers = list(commands(make_parser()))
    assert len(parsers) > 10
    for parser in parsers:
        assert f"{parser.prog} [-h]" in " ".join(said.split()), parser.prog
        for action in parser._actions:
            if action.option_strings and action.dest != "help":
                assert re.search(rf"^.*{action.option_strings[-1]}\b", said, re.MULTILINE), action.option_strings


def test_every_public_name(site: Path) -> None:
    said = "\n".join(
        text(site, page.relative_to(DOCS).with_suffix("").as_posix()) for page in DOCS.glob("reference/*.md")
    )
    names = {*pytest_kvm.__all__, *host.__all__, *images.__all__} - {"__version__"}
    missing = {name for name in names if re.search(rf"(class|exception|pytest_kvm\.\S*\.?){name}\b", said) is None}
    assert missing == set()


def test_every_verb_of_a_machine(site: Path) -> None:
    """Verbs that the README shows, and all that somebody would look for."""
    said = text(site, "reference/machine")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The machine")[2].partition("\n## ")[0]
    verbs = {name for name in re.findall(r"`(?:state = )?vm\.(\w+)", readme) if not name.startswith("started")}
    assert len(verbs) > 10
    assert {verb for verb in verbs if f"VM.{verb}" not in said and verb not in ATTRIBUTES} == set()


# Told in the class's own text.
ATTRIBUTES = {"spec", "accel", "user", "started", "running"}


def test_every_page_is_reached(site: Path) -> None:
    contents = (site / "index.html").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).with_suffix(".html").as_posix() in contents
