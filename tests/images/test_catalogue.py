"""What a name or a path means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.catalogue import find_image, image_names


def test_names() -> None:
    names = image_names()
    assert names[:2] == ["tiny", "tiny:trixie"]
    assert {"tiny:bookworm", "tiny:trixie-backports", "tiny:sid", "cirros"} <= set(names)


@pytest.mark.parametrize(
    ("wrong", "near"), [("tyni", "tiny"), ("tiny:bookwurm", "tiny:bookworm"), ("cirrus", "cirros")]
)
def test_mistyped_name(wrong: str, near: str) -> None:
    with pytest.raises(SpecError, match=f"image '{wrong}' is neither a file nor one of tiny, .*{near!r}") as caught:
        find_image(wrong)
    assert (caught.value.keyword, caught.value.value) == ("image", wrong)


@pytest.mark.parametrize(
    ("content", "expected"), [(b"QFI\xfb\0\0\0\3", "qcow2"), (b"\x55\xaa" * 256, "raw"), (b"", "raw")]
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(content)
    image = find_image(path)
    assert (image.disk, image.disk_format, image.ready, image.kernel) == (path, expected, "login", None)
    assert find_image(str(path)) == image
    monkeypatch.chdir(tmp_path)
    assert find_image("disk.img").disk == path
    assert find_image("./disk.img").disk == path


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing\.img' cannot be read: No such file") as caught:
        find_image(tmp_path / "nothing.img")
    assert caught.value.keyword == "image"
    with pytest.raises(SpecError, match="Is a directory"):
        find_image(tmp_path)


def test_cirros_comes_later() -> None:
    with pytest.raises(ImageUnavailable, match="cirros") as caught:
        find_image("cirros")
    assert "--kvm-image=./cirros-disk.img" in caught.value.hint
