"""Which firmware is found, and in what order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm.host.uefi import directories, installed


def describe(folder: Path, name: str, executable: Path, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    entry: dict[str, Any] = {
        "description": name,
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(executable), "format": "raw"},
            "nvram-template": {"filename": f"{executable}.vars", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["secure-boot"],
        "tags": [],
    }
    (folder / f"{name}.json").write_text(json.dumps(entry | changes))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "code.fd"
    path.touch()
    return path


def test_what_is_described(tmp_path: Path, image: Path) -> None:
    describe(tmp_path / "a", "60-plain", image)
    (found,) = installed([tmp_path / "a", tmp_path / "missing"])
    assert (found.description, found.types, found.architectures) == (
        "60-plain",
        frozenset({"uefi"}),
        frozenset({"x86_64"}),
    )
    assert (found.machines, found.features) == (frozenset({"pc-q35-*"}), frozenset({"secure-boot"}))
    assert (found.executable, found.nvram) == (image, Path(f"{image}.vars"))


def test_one_that_is_a_kernel_has_no_variables(tmp_path: Path, image: Path) -> None:
    describe(tmp_path / "a", "it", image, mapping={"device": "memory", "filename": str(image)})
    (found,) = installed([tmp_path / "a"])
    assert (found.executable, found.nvram) == (image, None)


def test_order_and_precedence(tmp_path: Path, image: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    describe(second, "10-early", image)
    describe(first, "50-both", image, description="mine")
    describe(second, "50-both", image, description="theirs")
    describe(second, "60-hidden", image)
    (first / "60-hidden.json").touch()
    assert [each.description for each in installed([first, second])] == ["10-early", "mine"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"mapping": 1, "targets": 2}', "[" * 100_000])
def test_nonsense_is_passed_over(tmp_path: Path, image: Path, text: str) -> None:
    describe(tmp_path / "a", "good", image)
    (tmp_path / "a" / "bad.json").write_text(text)
    (tmp_path / "a" / "README").write_text("no description")
    assert [each.description for each in installed([tmp_path / "a"])] == ["good"]


def test_what_is_not_there_is_passed_over(tmp_path: Path) -> None:
    describe(tmp_path / "a", "gone", tmp_path / "gone.fd")
    assert installed([tmp_path / "a"]) == []


def test_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    assert directories([Path("/opt/qemu")]) == [
        Path("/home/me/.config/qemu/firmware"),
        Path("/etc/qemu/firmware"),
        Path("/opt/qemu/firmware"),
        Path("/usr/share/qemu/firmware"),
    ]
