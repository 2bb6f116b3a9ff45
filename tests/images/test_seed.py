"""What stands in a seed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from pytest_kvm.images.seed import Account, Seed, host_name, make_seed

ACCOUNT = Account("ssh-ed25519 AAAA", "secret", ("private", "ssh-ed25519 BBBB"))


def read(path: Path, name: str) -> bytes:
    """Return a file of an ISO, by its name there, which Rock Ridge and Joliet agree on."""
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    found = []
    for kind in ("rr_path", "joliet_path"):
        into = io.BytesIO()
        iso.get_file_from_iso_fp(into, **{kind: f"/{name}"})
        found.append(into.getvalue())
    iso.close()
    assert found[0] == found[1]
    return found[0]


def label(path: Path) -> str:
    return path.read_bytes()[0x8028:0x8048].decode().strip()  # ECMA-119, 8.4.7


def test_nocloud(tmp_path: Path) -> None:
    seed = make_seed("nocloud", name="web_1", account=ACCOUNT, user_data="#!/bin/sh\necho\n")
    seed.write(tmp_path / "seed.iso")
    assert label(tmp_path / "seed.iso") == "cidata"
    about = json.loads(read(tmp_path / "seed.iso", "meta-data"))
    assert about["local-hostname"] == "web-1"
    assert about["public-keys"] == {"pytest-kvm": "ssh-ed25519 AAAA\n"}
    assert about["instance-id"].startswith("i-")
    assert read(tmp_path / "seed.iso", "user-data") == b"#!/bin/sh\necho\n"
    first, _, rest = read(tmp_path / "seed.iso", "vendor-data").decode().partition("\n")
    assert first == "#cloud-config"
    assert json.loads(rest) == {
        "ssh_keys": {"ed25519_private": "private", "ed25519_public": "ssh-ed25519 BBBB"},
        "manage_etc_hosts": "localhost",
        "password": "secret",
        "chpasswd": {"expire": False},
    }


def test_config_drive(tmp_path: Path) -> None:
    seed = make_seed("config-drive", name="web", account=ACCOUNT, user_data={"packages": ["x"]})
    seed.write(tmp_path / "seed.iso")
    assert label(tmp_path / "seed.iso") == "config-2"
    about = json.loads(read(tmp_path / "seed.iso", "openstack/latest/meta_data.json"))
    assert (about["hostname"], about["public_keys"]) == ("web", {"pytest-kvm": "ssh-ed25519 AAAA\n"})
    assert read(tmp_path / "seed.iso", "openstack/latest/user_data").startswith(b'#cloud-config\n{\n "packages"')
    vendor = json.loads(read(tmp_path / "seed.iso", "openstack/latest/vendor_data.json"))
    assert vendor["cloud-init"].startswith("#cloud-config\n")


@pytest.mark.parametrize("kind", ["nocloud", "config-drive"])
def test_a_seed_is_known_by_what_is_in_it(tmp_path: Path, kind: str) -> None:
    def made(**changes: Any) -> Seed:
        return make_seed(kind, **{"name": "web", "account": ACCOUNT, **changes})

    assert made() == made()
    others = [
        made(name="other"),
        made(account=Account("ssh-ed25519 CCCC", None, ACCOUNT.host_key)),
        made(user_data="#!/bin/sh"),
        made(meta_data={"a": 1}),
    ]
    assert len({seed.digest for seed in [made(), *others]}) == 5

    def instance(seed: Seed) -> object:
        about = seed.files.get("meta-data") or seed.files["openstack/latest/meta_data.json"]
        told = json.loads(about)
        return told.get("instance-id") or told["uuid"]

    assert len({instance(seed) for seed in [made(), *others]}) == 5


def test_the_tests_own_words_win() -> None:
    meta = {"local-hostname": "mine", "instance-id": "i-7", "role": "db"}
    about = json.loads(make_seed("nocloud", name="web", account=ACCOUNT, meta_data=meta).files["meta-data"])
    assert {key: about[key] for key in meta} == meta


def test_user_data_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"\x1f\x8b gzip")
    seed = make_seed("nocloud", name="web", account=ACCOUNT, user_data=tmp_path / "init")
    assert seed.files["user-data"] == b"\x1f\x8b gzip"
    with pytest.raises(FileNotFoundError):
        make_seed("nocloud", name="web", account=ACCOUNT, user_data=tmp_path / "none")


def test_an_account_without_password() -> None:
    seed = make_seed("nocloud", name="web", account=Account("key", None, ("private", "public")))
    assert b"password" not in seed.files["vendor-data"]
    assert seed.files["user-data"] == b""


@pytest.mark.parametrize(
    ("name", "host"), [("web", "web"), ("web_1", "web-1"), ("a.b", "a-b"), ("_", "vm"), ("x-", "x")]
)
def test_host_name(name: str, host: str) -> None:
    assert host_name(name) == host
