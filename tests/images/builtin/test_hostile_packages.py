"""Packages, and indexes of them, that are damaged or made to harm who builds a guest of them."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import elf
from pytest_kvm.images.builtin.deb import members
from pytest_kvm.images.builtin.modules import read_info, select
from pytest_kvm.images.builtin.packages import PackageIndex, UnknownPackage
from pytest_kvm.images.builtin.pool import Pool, Selection
from pytest_kvm.images.builtin.rootfs import assemble
from pytest_kvm.images.keys import make_keys
from tests.images.builtin.fakes import FakePackage, build_deb, guest_packages, library, module


def deb(path: Path, data: bytes) -> Path:
    """Write a package whose files are this tar archive."""

    def entry(name: str, content: bytes) -> bytes:
        return (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )

    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        text = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    path.write_bytes(
        b"!<arch>\n"
        + entry("debian-binary", b"2.0\n")
        + entry("control.tar", control.getvalue())
        + entry("data.tar", data)
    )
    return path


def built(tmp_path: Path, kernel: list[Path], userland: list[Path]) -> str:
    """Return why there can be no guest of these packages; nothing is written beside the scratch directory."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    keys = make_keys(tmp_path / "keys")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ImageUnavailable) as caught:
        assemble(kernel, userland, keys, scratch)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


@pytest.fixture
def good(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Packages of a kernel and of programs."""
    made = {package.name: build_deb(package, tmp_path) for package in guest_packages()}
    kernel = [path for name, path in made.items() if name.startswith("linux-image-6")]
    return kernel, [path for name, path in made.items() if not name.startswith("linux")]


def test_a_module_whose_name_leads_out_of_the_guest(tmp_path: Path, good: tuple[list[Path], list[Path]]) -> None:
    kernel, userland = good
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("/usr/lib/modules/R/kernel/../../../../../../etc/virtio.ko")
        data = module()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    evil = deb(tmp_path / "evil.deb", file.getvalue())
    assert "are damaged: path 'lib/modules/" in built(tmp_path, [*kernel, evil], userland)


def test_a_kernel_whose_release_leads_out_of_the_guest(tmp_path: Path, good: tuple[list[Path], list[Path]]) -> None:
    _, userland = good
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("boot/vmlinuz-x/../../../y", b"kernel"), ("usr/lib/modules/x/kernel/virtio.ko", module())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    evil = deb(tmp_path / "evil.deb", file.getvalue())
    assert "are damaged: path 'lib/modules/x/../../../y/" in built(tmp_path, [evil], userland)


def test_libraries_that_are_links_to_one_another(tmp_path: Path, good: tuple[list[Path], list[Path]]) -> None:
    kernel, userland = good
    links = {"/usr/lib/x86_64-linux-gnu/liba.so.1": "libb.so.1", "/usr/lib/x86_64-linux-gnu/libb.so.1": "liba.so.1"}
    circle = build_deb(FakePackage("circle", links), tmp_path)
    needing = build_deb(
        FakePackage("dropbear-bin", {"/usr/sbin/dropbear": library("liba.so.1")}, version="2.0"), tmp_path
    )
    without = [path for path in userland if "dropbear" not in path.name]
    assert "do not hold the library liba.so.1" in built(tmp_path, kernel, [*without, needing, circle])


def test_a_program_that_is_none(tmp_path: Path, good: tuple[list[Path], list[Path]]) -> None:
    kernel, userland = good
    other = build_deb(FakePackage("dropbear-bin", {"/usr/sbin/dropbear": b"#!/bin/sh"}, version="2.0"), tmp_path)
    without = [path for path in userland if "dropbear" not in path.name]
    assert "are damaged: not a little-endian ELF64 file" in built(tmp_path, kernel, [*without, other])


def test_modules_that_need_one_another() -> None:
    modules = {"a.ko": module(depends="b"), "b.ko": module(depends="c"), "c.ko": module(depends="a")}
    with pytest.raises(ImageUnavailable, match=r"the kernel module [abc] needs itself"):
        select(["a"], {"a": "a.ko", "b": "b.ko", "c": "c.ko"}, modules.__getitem__)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=9))
def test_damaged_programs(place: int, error: bytes) -> None:
    for good in (library("libc.so.6"), module(depends="virtio")):
        data = bytearray(good)
        data[place : place + len(error)] = error
        with contextlib.suppress(ValueError):
            elf.needed(bytes(data))
        with contextlib.suppress(ValueError):
            read_info(bytes(data))


@given(st.integers(0, 600), st.binary(min_size=1, max_size=9))
def test_damaged_packages(tmp_path_factory: pytest.TempPathFactory, place: int, error: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("a/b")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    data = bytearray(file.getvalue())
    data[place : place + len(error)] = error
    path = deb(tmp_path_factory.mktemp("deb") / "x.deb", bytes(data))
    with contextlib.suppress(ImageUnavailable):
        list(members(path, lambda _: True))


# Indexes

STANZA = "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: {file}\nSize: {size}\nSHA256: {sha}\n\n"
SHA = "0" * 64
SELECTION = Selection(name="x", suite="trixie", roots=("root",), prefixes=("",))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha", "../../../evil"),
        ("sha", "/etc/passwd"),
        ("version", "-o=Dir::Bin=/x"),
        ("version", "1 -o"),
        ("size", "many"),
        ("size", "9" * 5000),
    ],
)
def test_an_index_that_is_not_to_be_believed(tmp_path: Path, field: str, value: str) -> None:
    fields = {"name": "root", "version": "1.0", "file": "pool/x.deb", "size": "1", "sha": SHA, field: value}
    index = PackageIndex([STANZA.format(**fields)])
    with pytest.raises(ImageUnavailable, match="the index of suite trixie is damaged"):
        Pool(tmp_path / "pool").resolve(SELECTION, index)
    assert not (tmp_path / "pool").exists()


@given(st.text(max_size=80) | st.lists(st.sampled_from(STANZA.splitlines(keepends=True))).map("".join))
def test_any_index(text: str) -> None:
    index = PackageIndex([text])
    for name in ("root", "{name}"):
        with contextlib.suppress(UnknownPackage, ValueError):
            index.resolve([name], lambda _: True)


def test_dpkg_is_never_asked_to_unpack(tmp_path: Path) -> None:
    """What is in a package is read from a stream; a link and what is behind it leave no trace."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        link = tarfile.TarInfo("usr")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        tar.addfile(link)
        info = tarfile.TarInfo("usr/lib/x.so")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    (tmp_path / "outside").mkdir()
    package = deb(tmp_path / "evil.deb", file.getvalue())
    assert [member.path for member in members(package, lambda _: True)] == ["usr", "usr/lib/x.so"]
    assert list((tmp_path / "outside").iterdir()) == []
    assert subprocess.run(["dpkg-deb", "--info", package], capture_output=True, check=False).returncode == 0
