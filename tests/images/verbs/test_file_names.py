"""Files are what a path names, whatever characters are in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvm import images
from tests.images.verbs.disks import MIB

NAMES = (
    *("a,b c=d.qcow2", "-f", "nbd:127.0.0.1:10809", "nbd://127.0.0.1/x", "json:{}", "fat:rw:.", "file:disk"),
    *("über€", "new\nline", "driver=raw,file.filename=x", "'\"\\%s", "\udcff"),
)


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name) for name in NAMES])
def test_every_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    if "/" in name:
        (tmp_path / "nbd:" / "127.0.0.1").mkdir(parents=True)
    base = images.create(name, "1M")
    assert base == tmp_path / name
    over = images.create("over", backing=name, backing_format="qcow2", relative_backing=True)
    for verb in (images.check, images.map, images.measure, images.info):
        assert verb(name)
    images.snapshot(name, "one")
    assert images.snapshots(name)[0].name == "one"
    images.delete_snapshot(name, "one")
    images.bitmap(name, "one")
    images.delete_bitmap(name, "one")
    images.amend(name, {"lazy_refcounts": True})
    assert images.resize(name, "2M") == 2 * MIB
    assert [each.path for each in images.info("over", chain=True).chain] == [base]
    assert images.commit("over") == base
    images.rebase("over", name, backing_format="qcow2")
    told = images.info("over")
    assert (told.backing_file, told.backing_name) == (base, str(base))
    images.rebase("over", None)
    images.rebase("over", name, backing_format="qcow2", unsafe=True, relative_backing=True)
    assert images.compare("over", name)
    over.unlink()
    images.convert(name, "copy")
    images.convert("copy", name, overwrite=True, progress=lambda _: None)
    Path("copy").unlink()
    assert [entry for _, _, entries in os.walk(tmp_path) for entry in entries] == [Path(name).name]
