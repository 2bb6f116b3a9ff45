"""The parts of the reference that are read from the plugin: options with their ini twins, fixtures, markers.

They are directives for reStructuredText: ``.. plugin-options::``, ``.. plugin-fixtures::``, ``.. plugin-markers::``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pytest_kvm.plugin import fixtures
from pytest_kvm.plugin.hooks import MARKERS
from pytest_kvm.plugin.options import add_options, ini_name


@dataclass(frozen=True)
class Option:
    """An option of the command line, and its ini twin's name and type."""

    name: str
    metavar: str | None
    twin: str
    type: str
    help: str


class Recorder:
    """Stands in for pytest's parser, and writes down what it is told."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}
        self.inis: dict[str, str] = {}

    def getgroup(self, *_: str) -> Recorder:
        """Return what has ``addoption``."""
        return self

    def addoption(self, name: str, **given: Any) -> None:
        """Write down an option."""
        self.options[name] = given

    def addini(self, name: str, _: str, *, type: str = "string", default: object = None) -> None:
        """Write down an ini option."""
        self.inis[name] = type


def options() -> list[Option]:
    """Return all options of the plugin, by name."""
    told = Recorder()
    add_options(told)  # type: ignore[arg-type]
    return [
        Option(
            name=name,
            metavar=None if given.get("action") == "store_true" else given["metavar"],
            twin=twin,
            type=told.inis[twin],
            help=given["help"],
        )
        for name, given in sorted(told.options.items())
        for twin in [ini_name(name.removeprefix("--kvm-"))]
    ]


def public_fixtures() -> Iterator[tuple[str, str, str]]:
    """Yield each fixture that tests use, its scope, and its docstring."""
    for function in ast.parse(inspect.getsource(fixtures)).body:
        if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
            for decorator in function.decorator_list:
                words = decorator.keywords if isinstance(decorator, ast.Call) else []
                scope = next((ast.literal_eval(word.value) for word in words if word.arg == "scope"), "function")
                yield function.name, scope, ast.get_docstring(function) or ""


class _Written(SphinxDirective):
    """A directive that stands for text."""

    def text(self) -> Iterator[str]:
        """Yield the lines of what it stands for."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the text."""
        parent = nodes.container()
        self.state.nested_parse(StringList(list(self.text()), source="the plugin"), 0, parent)
        return parent.children


class PluginOptions(_Written):
    """All options."""

    def text(self) -> Iterator[str]:
        """Yield an entry for each."""
        for option in options():
            yield f".. option:: {option.name}{f'={option.metavar}' if option.metavar else ''}"
            yield ""
            yield f"   {option.help[0].upper()}{option.help[1:]}.".replace("*", "\\*")
            yield ""
            kind = "list, one a line" if option.type == "linelist" else option.type
            yield f"   In the ini file: ``{option.twin}`` ({kind})."
            yield ""


class PluginFixtures(_Written):
    """All fixtures."""

    def text(self) -> Iterator[str]:
        """Yield an entry for each."""
        for name, scope, text in public_fixtures():
            yield f".. py:data:: {name}"
            yield ""
            yield f"   *Scope: {scope}.* "
            for line in text.splitlines():
                yield f"   {line}"
            yield ""


class PluginMarkers(_Written):
    """All markers."""

    def text(self) -> Iterator[str]:
        """Yield an entry for each."""
        for marker in MARKERS:
            signature, _, text = marker.partition("): ")
            name, _, arguments = signature.partition("(")
            yield f".. py:decorator:: pytest.mark.{name}({arguments.replace('*, ', '')})"
            yield ""
            yield f"   {text[0].upper()}{text[1:]}"
            yield ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("plugin-options", PluginOptions)
    app.add_directive("plugin-fixtures", PluginFixtures)
    app.add_directive("plugin-markers", PluginMarkers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
