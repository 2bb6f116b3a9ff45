"""The order of the rooms: a file imports only from its own folder and from those above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_kvm

# From the top down. What stands beside the folders is one room, the uppermost.
ROOMS = (
    *(
        "",
        "virtio",
        "spec",
        "qemu",
        "host",
        "images",
        "network",
        "guest",
        "kernel",
        "machine",
        "display",
        "report",
        "cli",
    ),
    "plugin",
)
TOP = ("errors", "files", "journal", "visible", "waiting")
# Both lead everywhere: what a user imports, and what the interpreter runs.
FRONT_DOOR = ("__init__", "__main__")
FRAMEWORK = ("pytest", "_pytest", "pluggy", "xdist")
PACKAGE = Path(pytest_kvm.__file__).parent


def room_of(module: str) -> str:
    """Return the room of a module of the package; raises LookupError for one that has none."""
    name, _, inner = module.removeprefix("pytest_kvm").removeprefix(".").partition(".")
    if name in TOP and not inner:
        return ""
    if name and name in ROOMS:
        return name
    raise LookupError(f"'{module}' is in no room")


def imported(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield the modules that a file imports, wherever in it, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            folder = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*folder, *([node.module] if node.module else [])])
            if source == "pytest_kvm":  # its submodules count one by one
                for alias in node.names:
                    yield node.lineno, f"{source}.{alias.name}"
            else:
                yield node.lineno, source


def trespasses(text: str, module: str) -> list[str]:
    """Return what is wrong with the imports of a file, a line each."""
    try:
        room = room_of(module)
    except LookupError as error:
        return [str(error)]
    found = []
    for line, name in imported(ast.parse(text), module):
        top = name.partition(".")[0]
        if top in FRAMEWORK and room != "plugin":
            found.append(f"{module}:{line} imports {name}: only plugin may")
        if top != "pytest_kvm":
            continue
        try:
            other = room_of(name)
        except LookupError as error:
            found.append(f"{module}:{line}: {error}")
            continue
        if ROOMS.index(other) > ROOMS.index(room):
            found.append(f"{module}:{line} imports {name}, which is further down")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts not in [("pytest_kvm", name) for name in FRONT_DOOR]:
            yield ".".join(parts), path


def test_every_file_keeps_to_the_order() -> None:
    files = list(modules())
    assert len(files) > 50
    assert [line for module, path in files for line in trespasses(path.read_text(), module)] == []


@pytest.mark.parametrize(
    ("module", "text", "wrong"),
    [
        ("pytest_kvm.host.accel", "from pytest_kvm.qemu.binary import QEMUBinary", False),
        ("pytest_kvm.host.accel", "from pytest_kvm.host.cache import cache_dir", False),
        ("pytest_kvm.host.accel", "from pytest_kvm.errors import HostError\nimport json, platform", False),
        ("pytest_kvm.host.accel", "from pytest_kvm import errors", False),
        ("pytest_kvm.errors", "from pytest_kvm.waiting import Deadline", False),
        ("pytest_kvm.plugin.hooks", "import pytest\nfrom pytest_kvm.cli import main", False),
        ("pytest_kvm.host.accel", "from pytest_kvm.images.builtin.tiny import tiny_image", True),
        ("pytest_kvm.host.accel", "import pytest_kvm.guest.shell.shell", True),
        ("pytest_kvm.host.accel", "from pytest_kvm import guest", True),
        ("pytest_kvm.host.accel", "from pytest_kvm import Drive", True),
        ("pytest_kvm.host.accel", "import pytest_kvm", True),
        ("pytest_kvm.host.accel", "from ..guest import shell", True),
        ("pytest_kvm.host.accel", "from .cache import cache_dir", False),
        ("pytest_kvm.host.accel", "def late():\n    from pytest_kvm.guest import shell", True),
        ("pytest_kvm.host.accel", "if TYPE_CHECKING:\n    from pytest_kvm.machine.vm import VM", True),
        ("pytest_kvm.errors", "from pytest_kvm.spec.vm import VMSpec", True),
        ("pytest_kvm.machine.vm", "import pytest", True),
        ("pytest_kvm.machine.vm", "from _pytest.config import Config", True),
        ("pytest_kvm.cellar.vm", "import json", True),
        ("pytest_kvm.helpers", "import json", True),
    ],
)
def test_the_test_itself(module: str, text: str, wrong: bool) -> None:
    assert bool(trespasses(text, module)) is wrong
