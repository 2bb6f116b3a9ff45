"""Disk images that lie: whatever QEMU would take for the name of another file, we have seen."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.errors import SpecError
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.images.formats import NotADisk, Qcow2, look, partitions_end, read_qcow2
from pytest_kvm.images.trust import check_disk
from pytest_kvm.machine.disks import check_files
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.vm import VMSpec
from tests.images.disks import BINARY, QEMU_IMG, make_qcow2

BACKING_FORMAT, DATA_FILE, UNKNOWN = 0xE2792ACA, 0x44415441, 0x12345678


def header(
    *,
    version: int = 3,
    offset: int = 0,
    size: int = 0,
    bits: int = 16,
    incompatible: int = 0,
    length: int = 104,
    extensions: bytes = b"",
) -> bytes:
    """Return a qcow2 image of no bytes, with a header that says this."""
    cluster = 1 << min(max(bits, 9), 21)
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, offset, size, bits, 0, 0, 0, 2 * cluster, cluster, 1, 0, 0
    )
    head += struct.pack(">QQQII", incompatible, 0, 0, 4, length) + extensions
    return head.ljust(3 * cluster, b"\0")


def extension(kind: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">II", kind, len(data) if length is None else length) + data + bytes(-len(data) % 8)


def named(image: bytes, offset: int, name: bytes) -> bytes:
    """Return the image with a name somewhere in it."""
    return image[:offset] + name + image[offset + len(name) :]


def read(data: bytes, folder: Path) -> Qcow2:
    path = folder / "image"
    path.write_bytes(data)
    return read_qcow2(path)


NAMES = st.sampled_from(
    [b"base", b"data", b"/etc/passwd", b"raw", b"vmdk", b"a\0b", b"\xff", b"nbd:x", b"json:{}", b""]
)
# Kind, data or how many bytes, and what is said to be their number.
EXTENSIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([BACKING_FORMAT, DATA_FILE, DATA_FILE, UNKNOWN]), NAMES, st.none()),
        st.just((UNKNOWN, 66_000, None)),
        st.tuples(st.sampled_from([BACKING_FORMAT, UNKNOWN]), st.just(b"x"), st.sampled_from([9, 2**31, 2**32 - 1])),
        st.just((0, b"", None)),
    ),
    max_size=4,
)
HEADERS = st.fixed_dictionaries(
    {
        "offset": st.sampled_from([0, 0, 300, 510, 40_000, 65_530, 66_500, 2**40, 2**63, 2**64 - 1]),
        "version": st.sampled_from([3, 3, 3, 2, 1, 4]),
        "bits": st.sampled_from([16, 16, 21, 9, 8, 22, 63, 2**32 - 1]),
        "incompatible": st.sampled_from([0, 4, 4, 2, 1 << 60]),
        "length": st.sampled_from([104, 104, 112, 72, 0, 3, 50_000, 2**32 - 1]),
    }
)


@settings(max_examples=100)
@given(HEADERS, NAMES, EXTENSIONS)
def test_qemu_reads_no_other_names_than_we_do(
    fields: dict[str, int], name: bytes, extensions: list[tuple[int, bytes | int, int | None]]
) -> None:
    listed = b"".join(
        extension(kind, bytes(data) if isinstance(data, int) else data, length) for kind, data, length in extensions
    )
    image = header(size=len(name) if fields["offset"] else 0, extensions=listed, **fields)
    if fields["offset"] < len(image):
        image = named(image, fields["offset"] or 200_000, name)
    with tempfile.TemporaryDirectory(prefix="pk-") as place:
        folder = Path(place)
        (folder / "data").touch()
        try:
            ours = read(image, folder)
        except NotADisk:
            return
        told = subprocess.run(
            [QEMU_IMG, "info", "-f", "qcow2", "--output=json", "image"], cwd=folder, capture_output=True, check=False
        )
        if told.returncode:
            return  # it would not be opened
        theirs = json.loads(told.stdout)
        more = theirs.get("format-specific", {}).get("data", {})
        assert ours.backing == theirs.get("backing-filename")
        assert (ours.data or None) == more.get("data-file")
        if ours.backing is not None:
            assert ours.backing_format == theirs.get("backing-filename-format")


@given(st.binary(max_size=1200))
def test_any_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        path = Path(name) / "image"
        for start in (b"", b"QFI\xfb"):
            path.write_bytes(start + data)
            with contextlib.suppress(NotADisk):
                look(path)
            with contextlib.suppress(NotADisk):
                read_qcow2(path)
            assert partitions_end(path) >= 0


@pytest.mark.parametrize(
    "data",
    [
        header(offset=2**64 - 1, size=4),
        header(offset=2**63 - 10, size=4),
        header(bits=63),
        header(bits=2**32 - 1),
        header(extensions=extension(UNKNOWN, b"", 2**32 - 1)),
        named(header(offset=600, size=3), 600, b"a\0b"),
        header(incompatible=4, extensions=extension(DATA_FILE, b"a\0b")),
        header()[:103],
        header()[:72],
        b"QFI\xfb",
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(SpecError, match=r"cannot be used: (its qcow2 header is damaged|it is no qcow2 image)"):
        check_disk(tmp_path / "image", None, binary=BINARY, remembered=Remembered(tmp_path / "memory"))


def test_a_name_far_behind(tmp_path: Path) -> None:
    """Where we do not look, QEMU must not either: what comes last counts."""
    hidden = extension(DATA_FILE, b"good") + extension(UNKNOWN, bytes(1 << 20)) + extension(DATA_FILE, b"/etc/passwd")
    image = read(header(bits=21, incompatible=4, extensions=hidden), tmp_path)
    assert image.data == "/etc/passwd"
    with pytest.raises(SpecError, match="it has a data file outside its folder, '/etc/passwd'"):
        check_disk(tmp_path / "image", "qcow2", binary=BINARY, remembered=Remembered(tmp_path / "memory"))


# Disks that a guest has written to


def test_a_raw_disk_that_a_guest_made_qcow2(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    disk = tmp_path / "shared" / "disk"
    disk.write_bytes(named(header(offset=600, size=11), 600, b"/etc/passwd"))
    with pytest.raises(SpecError) as caught:
        check_files(VMSpec(drives=[Drive(disk, snapshot=False)]))
    assert str(caught.value) == (
        f"Drive(file='{disk}'): it looks like qcow2, and it has a backing file outside its folder, '/etc/passwd'; "
        "move it there, or make one file of it: qemu-img convert -O qcow2 disk NEW. A guest may have written that into "
        "a raw disk; say format='qcow2' if it is what you mean, or format='raw'"
    )
    for format_ in ("raw", "qcow2"):
        check_files(VMSpec(drives=[Drive(disk, format=format_)]))
    make_qcow2(tmp_path / "shared" / "base", data=0)
    make_qcow2(tmp_path / "shared" / "overlay", "-F", "qcow2", "-b", "base", data=0)
    check_files(VMSpec(drives=[Drive(tmp_path / "shared" / "overlay")]))


@pytest.mark.parametrize("keyword", ["kernel", "cdrom", "drives"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, keyword: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    given_ = [Drive(tmp_path / "pipe")] if keyword == "drives" else tmp_path / "pipe"
    with pytest.raises(SpecError, match="it is a pipe or a socket"):
        check_files(VMSpec(**{keyword: given_}))  # type: ignore[arg-type]


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(SpecError, match="File name too long"):
        check_files(VMSpec(kernel="/tmp/" + "x" * 300))
