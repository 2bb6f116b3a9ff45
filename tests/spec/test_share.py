"""Shares: what they may say, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import Drive, FromFixture, Nic, Share, SpecError, VMSpec
from pytest_kvm.spec.vm import resolve


def test_defaults() -> None:
    share = Share("data", "/mnt")
    assert (share.readonly, share.method, share.id) == (True, "auto", None)
    assert repr(Share("data", "/mnt", False)) == "Share(host='data', guest='/mnt', readonly=False)"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"host": ""}, "Share(host=''): expected a path"),
        ({"host": 3}, "Share(host=3): expected a path, got 3 (int)"),
        ({"guest": "mnt"}, "Share(guest='mnt'): expected the absolute path of a folder in the guest, other than /"),
        ({"guest": "//"}, "Share(guest='//'): expected the absolute path of a folder in the guest, other than /"),
        (
            {"guest": Path("/mnt")},
            "Share(guest=PosixPath('/mnt')): expected the absolute path of a folder in the guest",
        ),
        ({"guest": "/a\0b"}, "NUL"),
        ({"readonly": "no"}, "Share(readonly='no'): expected True or False"),
        ({"method": "nfs"}, "Share(method='nfs'): unknown value 'nfs'"),
        ({"method": "virtio-fs"}, "did you mean 'virtiofs'?"),
        ({"method": "image", "readonly": False}, "Share(method='image', readonly=False): an image is a copy"),
        ({"id": "a" * 21}, "at most 20"),
        ({"path": "/x"}, "Share(path=…): unknown keyword 'path'"),
    ],
)
def test_what_cannot_be(fields: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Share(**{"host": "data", "guest": "/mnt", **fields})  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"shares": "data"},
            "vm(shares='data'): expected a list of Share(...), got 'data' (str); write shares=[Share('data', '/",
        ),
        ({"shares": ["data"]}, "expected Share(...), got 'data' (str); write Share('data', '/mnt')"),
        ({"shares": [Share("a", "/mnt"), Share("b", "/mnt/")]}, "vm(shares=…): two shares have guest '/mnt'"),
        (
            {"shares": [Share("a", "/a", id="x"), Share("b", "/b", id="x")]},
            "vm(shares=…): two shares have id 'x'",
        ),
        (
            {"shares": [Share("a", "/a", id="x")], "drives": [Drive(size="1M", id="x")]},
            "vm(drives=…, shares=…): a drive and a share have id 'x'",
        ),
        (
            {"nics": [Nic(id="x")], "drives": [Drive(size="1M", id="x")]},
            "vm(drives=…, nics=…): a drive and a NIC have id 'x'",
        ),
        ({"image": None, "shares": [Share("a", "/a")]}, "nobody mounts a share where there is no image"),
    ],
)
def test_what_contradicts_itself(fields: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        VMSpec(**fields)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_a_folder_from_a_fixture_starts_at_the_tests_folder() -> None:
    spec = VMSpec(shares=[Share(FromFixture("folder"), "/mnt")])
    given = {"folder": "data"}
    assert resolve(spec, given.__getitem__, base=Path("/tests")).shares == (Share(Path("/tests/data"), "/mnt"),)
