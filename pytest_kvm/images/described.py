"""The user's own images, as ``pyproject.toml`` describes them: ``[tool.pytest-kvm.images.NAME]``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.fields import is_path
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.wording import did_you_mean, shown

FILE = "pyproject.toml"
_TABLE = "tool.pytest-kvm"


def read_project(folder: Path) -> dict[str, Image]:
    """Return the images that the project in ``folder`` describes, by their names; relative paths start there.

    ``ready`` is a name, or a table ``{pattern = "…"}``. Raises SpecError.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            tool = tomllib.load(file).get("tool", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {error}") from error
    tables = tool.get("pytest-kvm", {}) if isinstance(tool, Mapping) else {}
    if not isinstance(tables, Mapping):
        raise SpecError(f"{path}: expected a table [{_TABLE}], got {shown(tables)}", keyword=_TABLE)
    for key in tables:
        if key != "images":
            raise SpecError(f"{path}, [{_TABLE}]: unknown key {key!r}; {did_you_mean(key, ['images'])}", keyword=key)
    images = tables.get("images", {})
    if not isinstance(images, Mapping):
        raise SpecError(f"{path}, {_TABLE}.images: expected tables [{_TABLE}.images.NAME]", keyword="images")
    return {name: _image(path, name, table).below(folder) for name, table in images.items()}


def check_name(name: object) -> str:
    """Return a name that an image of the user's may have; raises SpecError."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:+-]*", name):
        raise SpecError(f"image {shown(name)}: a name has letters, digits, '.', '_', ':', '+' and '-'")
    if is_path(name):
        raise SpecError(f"image {shown(name)}: a name with this ending would be taken for a path")
    return name


def _image(path: Path, name: str, table: object) -> Image:
    where = f"{path}, [{_TABLE}.images.{name}]"
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: expected a table, got {shown(table)}", keyword=name, value=table)
    fields = dict(table)
    ready = fields.get("ready")
    try:
        check_name(name)
        if isinstance(ready, Mapping):
            fields["ready"] = _pattern(ready)
        return Image(**{"name": name, **fields})
    except SpecError as error:
        raise SpecError(f"{where}: {error}", keyword=error.keyword, value=error.value) from error


def _pattern(table: Mapping[str, object]) -> re.Pattern[str]:
    pattern = table.get("pattern")
    if set(table) != {"pattern"} or not isinstance(pattern, str):
        raise SpecError(f"ready = {shown(dict(table))}: expected {{pattern = '…'}}", keyword="ready", value=table)
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise SpecError(f"ready: {pattern!r} is not a regular expression: {error}", keyword="ready") from error
