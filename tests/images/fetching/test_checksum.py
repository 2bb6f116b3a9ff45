"""Checksums: written, found in publishers' lists, computed."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pytest

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.fetching.checksum import Checksum, find_checksum

MD5, SHA1, SHA256, SHA512 = (hashlib.new(kind, b"content").hexdigest() for kind in ("md5", "sha1", "sha256", "sha512"))
OTHER = hashlib.sha256(b"other").hexdigest()
NAME = "disk-1.0 x86_64.qcow2"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"sha256:{SHA256}", "sha256"),
        (f"SHA256:{SHA256.upper()}", "sha256"),
        (f"  md5:{MD5}\n", "md5"),
        (f"sha1:{SHA1}", "sha1"),
        (f"sha512:{SHA512}", "sha512"),
        (MD5, "md5"),
        (SHA1.upper(), "sha1"),
        (SHA256, "sha256"),
        (SHA512, "sha512"),
    ],
)
def test_written(text: str, kind: str) -> None:
    checksum = Checksum.parse(text)
    assert (checksum.kind, checksum) == (kind, Checksum.of_stream(kind, io.BytesIO(b"content")))
    assert Checksum.parse(str(checksum)) == checksum


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "sha256", "sha256:", "sha256:abc", f"sha1:{SHA256}", f"sha257:{SHA256}", f"sha256:{'g' * 64}"),
        *(SHA256[:-1], f"{SHA256}0", f"sha256:sha256:{SHA256}", f"sha256 {SHA256}", "sha384:" + "0" * 96),
    ],
)
def test_written_wrong(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Checksum.parse(text)
    assert str(caught.value) == (
        f"checksum {text!r} is not KIND:HEX, as in 'sha256:9f86d0…', of the kinds md5 (32 hex digits),"
        " sha1 (40 hex digits), sha256 (64 hex digits), sha512 (128 hex digits)"
    )
    assert (caught.value.keyword, caught.value.value) == ("checksum", text)


def test_made_wrong() -> None:
    with pytest.raises(SpecError, match="is not KIND:HEX"):
        Checksum("sha256", SHA256.upper())


def test_of_a_file(tmp_path: Path) -> None:
    data = bytes(3 << 20)
    (tmp_path / "file").write_bytes(data)
    assert Checksum.of_file("sha512", tmp_path / "file").hex == hashlib.sha512(data).hexdigest()
    assert Checksum.of_file("md5", tmp_path / "file").title == "MD5"
    assert Checksum.of_file("sha1", tmp_path / "file").title == "SHA-1"


SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# {NAME}: 591724544 bytes
SHA256 ({NAME}) = {SHA256}
# other.qcow2: 123 bytes
SHA256 (other.qcow2) = {OTHER}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEEuBkjpR2FkFLF2tWfiDSFZbSkTsgFAmcGpcwACgkQiDSFZbSk
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"{SHA256}  {NAME}\n{OTHER}  other.qcow2\n", "sha256"),
        (f"{OTHER} *other.qcow2\r\n{SHA512.upper()} *{NAME}\r\n", "sha512"),
        (f"MD5 ({NAME}) = {MD5}\nsha1({NAME})= {SHA1}", "sha1"),
        (f"{MD5}  {NAME}\n{SHA256}  {NAME}\n{SHA1}  {NAME}\n", "sha256"),
        (f"{SHA256}  {NAME}\n{SHA256}  ./{NAME}\n", "sha256"),
        (f"{OTHER}  other/{NAME}\n{SHA256}  {NAME}\n", "sha256"),
        (f"{SHA256}  images/1.0/{NAME}\n", "sha256"),
        (SIGNED, "sha256"),
        (SHA256, "sha256"),
        (f"# made today\n\n {SHA512.upper()} \n", "sha512"),
    ],
)
def test_found(text: str, kind: str) -> None:
    assert find_checksum(text, NAME) == Checksum.of_stream(kind, io.BytesIO(b"content"))


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("", "it lists no file at all"),
        ("<html><title>404</title></html>", "it lists no file at all"),
        (f"{SHA256}\n{OTHER}\n", "it lists no file at all"),
        (f"{SHA256[:-2]}  {NAME}", "it lists no file at all"),
        (f"SHA512 ({NAME}) = {SHA256}", "it lists no file at all"),
        (f"{SHA256}  {NAME}.zst\n", f"it lists {NAME}.zst"),
        (f"{SHA256}  old-{NAME}\n{OTHER}  a\n{OTHER}  b\n{OTHER}  c\n{OTHER}  d\n", "it lists a, b, c and 2 more"),
    ],
)
def test_not_found(text: str, listed: str) -> None:
    with pytest.raises(ImageUnavailable) as caught:
        find_checksum(text, NAME, origin="https://host/SHA256SUMS")
    assert str(caught.value) == (
        f"https://host/SHA256SUMS has no checksum of {NAME} ({listed})\n"
        "  the publisher may have renamed the file: check both addresses"
    )


def test_several() -> None:
    text = f"{OTHER}  a/{NAME}\n{SHA256}  b/{NAME}\n"
    several = ", ".join(sorted([f"sha256:{OTHER}", f"sha256:{SHA256}"]))
    with pytest.raises(
        ImageUnavailable, match=re.escape(f"the checksum file has several checksums of {NAME}: {several}")
    ):
        find_checksum(text, NAME)


def test_a_files_own_list_may_call_it_what_it_was_called_before() -> None:
    text = f"{SHA256}  build-7-of-{NAME}\n"
    assert find_checksum(text, NAME, origin=f"https://host/{NAME}.sha256").hex == SHA256
    with pytest.raises(ImageUnavailable, match=f"has no checksum of {NAME}"):
        find_checksum(text, NAME, origin="https://host/SHA256SUMS")
