"""Saved machines and the store of templates, damaged in every way: nothing is believed, nothing else is removed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.errors import SpecError
from pytest_kvm.images.described import check_name, read_project
from pytest_kvm.machine.state import MANIFEST, Damaged, State
from pytest_kvm.machine.templates import Templates
from pytest_kvm.spec.image import Image
from tests.machine.states import GUEST, fill

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["format", "guest", "files", "digest"])
GUEST_FIELDS = st.sampled_from(["macs", "ports", "lanes", "seconds", "about", "other"])


def write(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).chmod(0o600)
    (folder / MANIFEST).write_bytes(text)


@given(st.dictionaries(FIELDS, JSON, max_size=2), st.dictionaries(GUEST_FIELDS, JSON, max_size=2))
def test_any_manifest(changes: dict[str, object], about: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        folder = Path(name)
        fill(folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["guest"] |= about
        write(folder, json.dumps(manifest | changes).encode())
        try:
            state = State.load(folder)
        except Damaged:
            return
        assert state.guest == GUEST


@given(st.integers(0, 700), st.binary(max_size=4), st.booleans())
def test_damage_anywhere(place: int, error: bytes, cut: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        folder = Path(name)
        fill(folder)
        text = (folder / MANIFEST).read_bytes()
        write(folder, text[:place] + error + (b"" if cut else text[place + len(error) :]))
        try:
            state = State.load(folder)
        except Damaged:
            return
        assert state.guest == GUEST


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"", b"null", b"9" * 10_000, b'{"format": 1e999}'])
def test_a_manifest_that_is_none(tmp_path: Path, text: bytes) -> None:
    fill(tmp_path)
    write(tmp_path, text)
    with pytest.raises(Damaged):
        State.load(tmp_path)


@pytest.mark.parametrize("target", ["/", "..", ".", "../other", "{other}", "other/../../other"])
def test_a_link_that_leads_out_of_the_store(tmp_path: Path, target: str) -> None:
    """Whoever put it there, what it leads to is not ours to remove."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    store = Templates(tmp_path / "templates")
    store.directory.mkdir()
    (store.directory / "other").mkdir()
    (store.directory / "key").symlink_to(target.format(other=other))
    assert store.open("key") is None
    assert store.entries() == []
    assert store.prune(0) == []
    store.remove("key")
    assert (store.directory / "key").is_symlink()
    assert (other / "precious").exists()


# What a project describes


@given(st.text(max_size=30) | st.sampled_from(["..", "../x", "/x", "x\0", "x.qcow2", "-x", ".x", "a" * 300]))
def test_any_name_of_an_image(name: str) -> None:
    try:
        check_name(name)
    except SpecError:
        return
    assert name[0].isalnum()
    assert not set(name) & set("/\\\0 \n")


TOML = st.recursive(
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.text(st.characters(codec="utf-8", exclude_characters="'\n\r"), max_size=9),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        "disk",
        "kernel",
        "checksum",
        "ready",
        "prompt",
        "devices",
        "memory",
        "seed",
        "self",
        "login",
        "sudo",
        "nonsense",
        "name",
    ]
)


@given(st.dictionaries(KEYS, TOML, max_size=4), st.text(st.characters(codec="utf-8"), max_size=8))
def test_any_description(fields: dict[str, object], name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as folder:
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        text = f"[tool.pytest-kvm.images.{json.dumps(name)}]\n" + "\n".join(lines)
        (Path(folder) / "pyproject.toml").write_text(text, encoding="utf-8")
        try:
            images = read_project(Path(folder))
        except SpecError:
            return
        assert all(isinstance(image, Image) for image in images.values())


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 100_000, "\0", "[tool]\npytest-kvm = 1", "[tool.pytest-kvm]\nimages = []"]
)
def test_a_project_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(SpecError):
        read_project(tmp_path)


def test_os_names(tmp_path: Path) -> None:
    """Names that no text is are names all the same."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path.mkdir()
    fill(path)
    assert State.load(path).guest == GUEST
