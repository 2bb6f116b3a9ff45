"""What cannot be is refused before anything is done: one line, and all files are as they were."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import HostError, QemuImgError, QEMUNotFound, SpecError, images
from tests.images.disks import QEMU_IMG
from tests.images.verbs.refusing import refused

Verb = Callable[[str], object]
READING: dict[str, Verb] = {
    "info": images.info,
    "info, chain": lambda path: images.info(path, chain=True),
    "check": images.check,
    "map": images.map,
    "measure": images.measure,
    "compare": lambda path: images.compare(path, "disk"),
    "compare, other": lambda path: images.compare("disk", path),
    "convert": lambda path: images.convert(path, "new"),
    "snapshots": images.snapshots,
    "bitmaps": images.bitmaps,
}
WRITING: dict[str, Verb] = {
    "check, repair": lambda path: images.check(path, repair="all"),
    "resize": lambda path: images.resize(path, "+1M"),
    "amend": lambda path: images.amend(path, {"lazy_refcounts": True}),
    "commit": images.commit,
    "rebase": lambda path: images.rebase(path, None),
    "snapshot": lambda path: images.snapshot(path, "one"),
    "apply_snapshot": lambda path: images.apply_snapshot(path, "one"),
    "delete_snapshot": lambda path: images.delete_snapshot(path, "one"),
    "bitmap": lambda path: images.bitmap(path, "one"),
    "create, backing": lambda path: images.create("new", backing=path, backing_format="qcow2"),
}
VERBS = {**READING, **WRITING}
# They do not open what an image is an overlay on.
ALONE = ("info", "snapshots", "bitmaps", "bitmap")

WHY = {
    "none": "there is no such file",
    "folder": "it is a directory",
    "pipe": "it is a pipe or a socket, which cannot be read more than once",
    "null": "it is neither a file nor a block device",
}
NO_DISK = {
    "empty": "it is empty",
    "page": "it is a web page, as servers send in place of a file that they do not have",
    "gzip": "it is compressed with gzip; unpack it first: gunzip",
    "half": "it is no qcow2 image, or not all of it",
    "vmdk": "it looks like vmdk; say so if it is: ",
}
CHAINS = {"lost": "the backing file '{}/gone': there is no such file; images.rebase(…, unsafe=True) names another"}
CHAINS |= {"loop": "it is an overlay on itself: '{0}/loop' on '{0}/back' on '{0}/loop'"}
CHAINS |= {"self": "it is an overlay on itself: '{0}/self' on '{0}/self'"}


@pytest.mark.parametrize("verb", VERBS)
def test_no_file(folder: Path, verb: str) -> None:
    for name, reason in WHY.items():
        said = refused(folder, lambda name=name: VERBS[verb](name))  # type: ignore[misc]
        assert said.startswith(f"images.{verb.partition(',')[0]}('")
        assert said.endswith(f": {reason}")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "create, backing"])
def test_no_disk(folder: Path, verb: str) -> None:
    for name, reason in NO_DISK.items():
        said = refused(folder, lambda name=name: VERBS[verb](name))  # type: ignore[misc]
        assert reason in said
        assert name in said


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ALONE])
def test_a_chain_that_cannot_be_opened(folder: Path, verb: str) -> None:
    for name, reason in CHAINS.items():
        said = refused(folder, lambda name=name: VERBS[verb](name))  # type: ignore[misc]
        assert said.endswith(reason.format("{}").replace("{0}", "{}"))


@pytest.mark.parametrize("verb", ALONE)
def test_an_image_alone(own: Path, verb: str) -> None:
    VERBS[verb]("lost")


def test_a_text_as_qcow2(folder: Path) -> None:
    for call in (images.info, images.check, images.map):
        said = refused(folder, lambda call=call: call("text", format="qcow2"))  # type: ignore[misc]
        assert said.endswith("text'): it is no qcow2 image, or not all of it")


def test_an_undeclared_image_of_files_elsewhere(own: Path) -> None:
    (own / "sub").mkdir()
    images.create("sub/over", backing="disk", backing_format="qcow2")
    said = refused(own, lambda: images.convert("sub/over", "new"))
    assert "it looks like qcow2, and it has a backing file outside its folder, '{}/disk'; move it there" in said
    assert "say source_format='qcow2' if it is what you mean, or source_format='raw'" in said
    assert "format='qcow2'" in refused(own, lambda: images.check("sub/over"))
    assert images.info("sub/over").backing_file == own / "disk"
    assert images.check("sub/over", format="qcow2").ok
    assert images.compare(images.convert("sub/over", "new", source_format="qcow2"), "disk")


@pytest.mark.parametrize("path", ["", "a\0b", None, 5, b"disk"], ids=repr)
def test_no_path(path: Any) -> None:
    with pytest.raises(SpecError, match=r"^images\.info\(path="):
        images.info(path)


def test_no_place(folder: Path) -> None:
    assert refused(folder, lambda: images.create("none/new", "8M")).endswith(
        "its folder, '{}/none': there is no such folder"
    )
    assert refused(folder, lambda: images.create("text/new", "8M")).endswith(": it is no folder")
    said = refused(folder, lambda: images.convert("disk", "folder", overwrite=True))
    assert said.endswith("'{}/folder' is a directory, and is kept; name a file")
    said = refused(folder, lambda: images.convert("disk", "raw"))
    assert said.endswith("there is a file '{}/raw' already, and it is kept; overwrite=True replaces it")
    assert "is read meanwhile" in refused(folder, lambda: images.convert("disk", "disk", overwrite=True))


CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "shrink": (lambda: images.resize("disk", "4M"), "all beyond 4194304 would be lost; shrink=True does it"),
    "too far": (lambda: images.resize("disk", "-9M", shrink=True), "of 8388608 bytes less than 512 would be left"),
    "negative": (lambda: images.resize("disk", -5), "size=-5): a change is text: size='-5'"),
    "no change": (lambda: images.resize("disk", "+"), "size='+'): expected a size such as"),
    "too large": (lambda: images.resize("disk", "+7E", shrink=True), "qemu-img refuses"),
    "reserve": (lambda: images.resize("disk", "9M", preallocation="fast"), "unknown value 'fast'; valid are off,"),
    "reserve nothing": (
        lambda: images.resize("disk", "4M", shrink=True, preallocation="full"),
        "preallocation= is of what is added, and nothing is",
    ),
    "amend raw": (lambda: images.amend("raw", {"compat": "1.1"}), "a raw image has no options that can be changed"),
    "amend nothing": (lambda: images.amend("disk", {}), "options={}): give what is to be changed, such as"),
    "amend what cannot be": (lambda: images.amend("disk", {"cluster_size": 1}), "qcow2 has no option 'cluster_size'"),
    "commit": (lambda: images.commit("disk"), "it is no overlay: there is nothing below it"),
    "commit raw": (lambda: images.commit("raw"), "it is no overlay: there is nothing below it"),
    "commit to no file": (lambda: images.commit("remote", format="qcow2"), "what is below it is no file: 'nbd://"),
    "commit elsewhere": (lambda: images.commit("over", base="raw"), "is no overlay on that; it is on '{}/disk'"),
    "rebase raw": (lambda: images.rebase("raw", None), "a raw image is no overlay; qcow2 or qed can be"),
    "rebase on none": (lambda: images.rebase("over", "x", backing_format="raw"), "'{}/x': there is no such file"),
    "rebase, guessing": (
        lambda: images.rebase("over", "raw"),
        "say its format, which is never guessed; it looks like raw",
    ),
    "rebase on nothing": (lambda: images.rebase("over", None, backing_format="raw"), "and there is none"),
    "repair": (lambda: images.check("disk", repair="some"), "unknown value 'some'; valid are leaks or all"),
    "repair in use": (lambda: images.check("disk", repair="all", force_share=True), "cannot be repaired"),
    "compress": (
        lambda: images.convert("disk", "new", format="raw", compress=True),
        "raw cannot be compressed; qcow2,",
    ),
    "bitmaps": (lambda: images.convert("raw", "new", bitmaps=True), "only qcow2 has bitmaps: this is raw to qcow2"),
    "sparse": (lambda: images.convert("disk", "new", sparse="x"), "sparse='x'): expected a size such as"),
    "progress": (lambda: images.convert("disk", "new", progress=5), "True, False, or a function of a fraction, got 5"),  # type: ignore[arg-type]
    "start": (lambda: images.map("disk", start=-1), "start=-1): expected a number of bytes of at least 0, got -1"),
    "format": (lambda: images.info("disk", format="qcow3"), "format='qcow3'): unknown value 'qcow3'"),
    "another format": (lambda: images.info("disk", format="qed"), "qemu-img refuses: Image not in QED format"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(folder: Path, name: str) -> None:
    call, reason = CALLS[name]
    assert reason in refused(folder, call, QemuImgError if reason.startswith("qemu-img refuses") else SpecError)


def test_measure_nothing() -> None:
    with pytest.raises(SpecError, match=r"^images\.measure\(size=None\): give an image or a size, not neither"):
        images.measure()
    with pytest.raises(SpecError, match=r"^images\.measure\(size='5X'\): expected a size"):
        images.measure(size="5X")
    with pytest.raises(SpecError, match="give an image or a size, not both"):
        images.measure("disk", size="1M")


def test_what_qemu_img_refuses(folder: Path) -> None:
    def call() -> None:
        images.create("new", "8M", options={"cluster_size": 12345})

    assert refused(folder, call, QemuImgError) == (
        "images.create('{}/new'): qemu-img refuses: Cluster size must be a power of two between 512 and 2048k"
    )
    with pytest.raises(QemuImgError) as refusal:
        call()
    assert refusal.value.returncode == 1
    assert refusal.value.command[:2] == (QEMU_IMG, "create")
    assert "qemu-img: " in refusal.value.stderr
    assert (refusal.value.nospace, refusal.value.in_use) == (False, False)


def test_a_corrupt_one(own: Path) -> None:
    with Path("disk").open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 1 << 1))
    said = refused(own, lambda: images.resize("disk", "9M"), QemuImgError)
    assert said.endswith("; images.check(…, repair='all') tries to mend it")
    assert images.check("disk", repair="all").ok
    images.resize("disk", "9M")


def test_an_encrypted_one(folder: Path) -> None:
    locked = images.create("locked", "1M")
    with locked.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack(">I", 1))  # AES
    assert images.info("locked").encrypted
    said = refused(folder, lambda: images.convert("locked", "new"))
    assert said.endswith("locked'): it is encrypted, and no secret can be given here; qemu-img itself takes one")
    locked.unlink()


INNER = """
import pytest
from pytest_kvm import images

@pytest.fixture
def disk(tmp_path):
    return images.create(tmp_path / "disk", "8X")

def test_setup(disk): ...

def test_call(tmp_path):
    images.create(tmp_path / "disk", "8M", options={"cluster_size": 5})

def test_skip(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    images.create(tmp_path / "disk", "8M")
"""


def test_in_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(INNER)
    result = pytester.runpytest("-rs")
    result.assert_outcomes(errors=1, failed=1, skipped=1)
    said = result.stdout.str()
    assert "pytest_kvm/" not in said
    result.stdout.fnmatch_lines(
        [
            "images.create('*/disk', size='8X'): expected a size such as*",
            ">*images.create(tmp_path / *",
            "E *QemuImgError: images.create('*/disk'): qemu-img refuses: Cluster size must be*",
            "SKIPPED*qemu-img is not installed; pytest_kvm.images needs it",
        ]
    )


def test_no_qemu_img(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QEMUNotFound, match=r"images\.info\('.*/disk'\): qemu='/none/qemu': no such executable"):
        images.info("disk", qemu="/none/qemu")
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(HostError) as refusal:
        images.info("disk")
    assert refusal.value.trouble == "qemu-img is not installed; pytest_kvm.images needs it"
    assert "doctor --install" in refusal.value.hint


def test_qemu_img_alone_will_do(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "bin").mkdir()
    (own / "bin" / "qemu-img").symlink_to(QEMU_IMG)
    for name in ("setpriv", "sh"):
        (own / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(own / "bin"))
    assert images.info("disk").format == "qcow2"
