"""Archives that a guest makes to harm who unpacks them."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.guest.ssh import unpack as module
from pytest_kvm.guest.ssh.unpack import Refused, unpack

BLOCK = 512


def octal(number: int, width: int) -> bytes:
    """Return a number as headers have it, in base 256 where it does not fit."""
    if 0 <= number < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, number)
    low: int = number % 256 ** (width - 1)
    return (b"\xff" if number < 0 else b"\x80") + low.to_bytes(width - 1, "big")


def header(
    name: bytes = b"file",
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    rest: bytes = b"",
    right: bool = True,
) -> bytes:
    """Return a header, with a checksum that is right."""
    made = bytearray(
        name[:100].ljust(100, b"\0")
        + octal(mode, 8)
        + octal(0, 8)
        + octal(0, 8)
        + octal(size, 12)
        + octal(0, 12)
        + b" " * 8
        + kind[:1].ljust(1, b"\0")
        + target[:100].ljust(100, b"\0")
        + magic[:8].ljust(8, b"\0")
        + rest[:247].ljust(247, b"\0")
    )
    if right:
        made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def long(kind: bytes, data: bytes) -> bytes:
    """Return a member that says something about the next one."""
    return header(b"././@LongLink", kind, size=len(data)) + padded(data)


def pax(kind: bytes = b"x", **records: bytes) -> bytes:
    data = b""
    for key, value in records.items():
        record = b" " + key.replace("_", ".").encode() + b"=" + value + b"\n"
        length = len(record) + 1
        while length != len(record) + len(str(length)):
            length += 1
        data += str(length).encode() + record
    return long(kind, data)


END = bytes(2 * BLOCK)


def unpacked(data: bytes, folder: Path) -> dict[str, int]:
    return unpack(io.BytesIO(data).read, folder)


# Anything

NAMES = st.sampled_from(
    [
        *(
            b"file",
            b"a/b",
            b".",
            b"..",
            b"",
            b"/",
            b"/etc/x",
            b"a/../../x",
            b"a//./b",
            b"\xff\xfe",
            b"new\nline",
            b"x" * 100,
        ),
        *(b"-rf", b"a\\b", b"CON", b"link", b"link/x", "ä".encode(), b"\x1b[2J"),
    ]
)
SIZES = st.sampled_from([0, 0, 3, 511, 512, 513, -1, -512, 2**33, 2**63, 2**80])
KINDS = st.sampled_from(list(map(bytes, zip(b"\x000123456789LKSDMNVxgXAZ"))))
DATA = st.binary(max_size=20) | st.sampled_from(
    [
        b"11 size=-5\n",
        b"0 x=y\n",
        b"99999 path=x\n",
        b"18 GNU.sparse.major=1\n",
        b"30 path=a/../../../etc/passwd\n",
        b"8 path=\0\n",
    ]
)
MEMBERS = st.builds(
    lambda name, kind, size, mode, target, data, right: (
        header(name, kind, size=size, mode=mode, target=target, right=right) + padded(data)
    ),
    NAMES,
    KINDS,
    SIZES,
    st.sampled_from([0o644, 0, 0o7777, -1, 2**70]),
    NAMES,
    DATA,
    st.integers(0, 9).map(bool),
)
PIECES = st.one_of(
    MEMBERS,
    MEMBERS,
    st.builds(long, st.sampled_from([b"L", b"K", b"x", b"g", b"X"]), DATA | NAMES),
    st.builds(lambda path: pax(path=path), NAMES),
    st.builds(lambda size: pax(size=size), st.sampled_from([b"-1", b"3", b"x", b"9" * 5000, b"1e9"])),
    st.builds(lambda major: pax(GNU_sparse_major=major, GNU_sparse_minor=b"0"), st.sampled_from([b"1", b"0"])),
    st.builds(
        lambda text: pax(GNU_sparse_map=text, GNU_sparse_size=b"9"),
        st.sampled_from([b"0,1", b"5,9", b"-1,1", b"x", b"1"]),
    ),
    st.just(END),
    st.binary(min_size=BLOCK, max_size=BLOCK),
)


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else str(path.stat().st_mode)
        for path in folder.rglob("*")
    }


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=5).map(b"".join))
def test_anything_stays_where_it_belongs(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        outside, folder = Path(name), Path(name) / "folder"
        folder.mkdir()
        (outside / "file").write_text("ours")
        try:
            modes = unpacked(data, folder)
        except (Refused, tarfile.TarError, EOFError):
            pass
        else:
            assert all(0 <= mode <= 0o777 for mode in modes.values())
            for path in folder.rglob("*"):
                assert os.path.realpath(path).startswith(os.path.realpath(folder))
                assert path.is_symlink() or path.is_file() or path.is_dir()
        assert sorted(path.name for path in outside.iterdir()) == ["file", "folder"]
        assert (outside / "file").read_text() == "ours"


@given(st.integers(0, 3 * BLOCK), st.binary(min_size=1, max_size=8))
def test_a_good_archive_with_an_error_in_it(place: int, error: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a", "b/c"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"xxx"))
    data = bytearray(file.getvalue())
    data[place : place + len(error)] = error
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        try:
            unpacked(bytes(data), Path(name))
        except (Refused, tarfile.TarError):
            return
        assert len(list(Path(name).iterdir())) <= 2


# What is known to have harmed somebody


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(b"file", size=3) + padded(b"xxx") + header(b"next", right=False) + END, "bad checksum"),
        (header(b"file", size=3) + padded(b"xxx") + b"x" * 100, "unexpected end of data"),
        (header(b"file", size=3) + padded(b"xxx"), "unexpected end of data"),
        (pax(size=b"-512") + header(b"file") + END, "a negative size"),
        (header(b"file", size=-1) + END, "a negative size"),
        (header(b"file", b"x", size=2**60) + END, "says more than 1 MiB|damaged header|unexpected end"),
        (header(b"file", b"L", size=2**60) + END, "says more than 1 MiB|damaged header|unexpected end"),
        (header(b"dir", b"5", size=2**60) + header(b"file") + END, None),
        (header(b"file", size=2**62) + padded(b"xxx"), "unexpected end of data"),
        (header(b"file", b"Z", size=2**62), "is a device, or a pipe"),
        (header(b"file", size=2**70), "cannot have 1180591620717411303424 bytes"),
        (pax(path=b"a\0b") + header() + END, "has a name, or leads to one, that no file can have"),
        (pax(linkpath=b"a\0b") + header(b"l", b"2") + END, "has a name, or leads to one, that no file can have"),
        (long(b"L", b"/".join([b"d"] * 1500) + b"\0") + header() + END, "is more than 200 directories deep"),
        (long(b"L", b"/".join([b"d"] * 200) + b"\0") + header() + END, None),
        (long(b"L", b"x" * 300 + b"\0") + header() + END, "cannot be here: File name too long"),
        (long(b"L", (b"x" * 99 + b"/") * 50 + b"\0") + header() + END, "cannot be here: File name too long"),
        (long(b"K", b"x" * 5000 + b"\0") + header(b"l", b"2") + END, "cannot be a link to 'x+': File name too long"),
        (header(b"file") + header(b"file/x") + END, "cannot be here: (Not a directory|File exists)"),
        (pax(GNU_sparse_map=b"0,1,5,9", GNU_sparse_size=b"9") + header(size=10) + END, "has content where it has none"),
        (pax(GNU_sparse_map=b"-5,1", GNU_sparse_size=b"9") + header(size=1) + END, "has content where it has none"),
    ],
)
def test_harm(tmp_path: Path, data: bytes, said: str | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if said is None:
        unpacked(data, folder)
    else:
        with pytest.raises((Refused, tarfile.TarError), match=said):
            unpacked(data, folder)
    assert os.listdir(tmp_path) == ["folder"]


class Endless:
    """An archive that begins with something and never ends."""

    def __init__(self, start: bytes, piece: bytes) -> None:
        self._data = start
        self._piece = piece
        self.taken = 0

    def read(self, size: int) -> bytes:
        while len(self._data) < size:
            self._data += self._piece
        data, self._data = self._data[:size], self._data[size:]
        self.taken += size
        return data


SPARSE = header(b"file", b"S", size=0, magic=b"ustar  \0", rest=bytes(137) + b"\1")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (header(b"", b"L", size=2**40), b"x" * BLOCK),
        (header(b"", b"x", size=2**40), b"x" * BLOCK),
        (b"", pax(b"g", **{f"k{number}": b"x" * 100 for number in range(50)})),
        (b"", long(b"L", b"x\0")),
        (SPARSE, (b"0" * 11 + b"\0") * 42 + b"\1" + bytes(7)),
        (pax(GNU_sparse_major=b"1", GNU_sparse_minor=b"0") + header(size=2**40), b"99999999999\n" + b"1\n" * 250),
    ],
    ids=["a long name", "pax", "global pax", "names without files", "old sparse", "sparse"],
)
def test_what_never_comes_to_its_file(
    tmp_path: Path, start: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEADER_LIMIT", 1 << 18)
    source = Endless(start, piece)
    tracemalloc.start()
    try:
        with pytest.raises((Refused, tarfile.TarError)):
            unpack(source.read, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert source.taken < 1 << 20


@pytest.mark.parametrize("kind", [b"2", b"5"])
def test_endlessly_many_members(tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEADERS_LIMIT", 1 << 20)
    members = b"".join(header(b"%06d" % number, kind, target=b"000000") for number in range(5000))
    with pytest.raises(Refused, match="it says more than 1 MiB about its files"):
        unpacked(members + END, tmp_path)


@pytest.mark.parametrize("say", [0, 1])
def test_a_hole_is_a_hole(tmp_path: Path, say: int) -> None:
    size = 1 << 31
    if say:
        maps = padded(b"1\n%d\n3\n" % (size - 3))
        told = {"GNU_sparse_major": b"1", "GNU_sparse_minor": b"0", "GNU_sparse_realsize": str(size).encode()}
        data = pax(**told, GNU_sparse_name=b"file") + header(b"x", size=len(maps) + 3) + maps + padded(b"end")
    else:
        told = {"GNU_sparse_map": b"%d,3" % (size - 3), "GNU_sparse_size": str(size).encode()}
        data = pax(**told) + header(size=3) + padded(b"end")
    unpacked(data + header(b"next", size=4) + padded(b"next") + END, tmp_path)
    with (tmp_path / "file").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        assert os.fstat(file.fileno()).st_blocks * 512 < 1 << 20
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"\0\0end"
    assert (tmp_path / "next").read_bytes() == b"next"


def test_a_real_sparse_archive(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    with (tmp_path / "from" / "file").open("wb") as file:
        for place in (0, 1 << 20, 1 << 24):
            file.seek(place)
            file.write(struct.pack("Q", place))
        file.truncate(1 << 25)
    for form in ("gnu", "posix"):
        made = subprocess.run(
            ["tar", f"--format={form}", "-cSf", "-", "-C", str(tmp_path / "from"), "."], capture_output=True, check=True
        )
        folder = tmp_path / form
        folder.mkdir()
        unpacked(made.stdout, folder)
        assert (folder / "file").read_bytes() == (tmp_path / "from" / "file").read_bytes()
        assert (folder / "file").stat().st_blocks * 512 < 1 << 20
