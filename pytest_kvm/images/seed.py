"""The seed of a cloud image: a small ISO that tells the guest its name, who may log in, and what to do.

NoCloud and config drive are those of cloud-init's documentation ("Datasources"). CirrOS reads both, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.files import write_atomically

UserData = str | os.PathLike[str] | Mapping[str, object]

_LABELS = {"nocloud": "cidata", "config-drive": "config-2"}
_CLOUD_CONFIG = "#cloud-config\n"
# What is ours goes where cloud-init looks for a provider's wishes: the test's user-data is its own, and wins.
_KEY_NAME = "pytest-kvm"


@dataclass(frozen=True)
class Account:
    """What a guest is told about logging in: a public key, and the password of its default user (None: its own).

    ``host_key`` is the SSH server's, as private key in OpenSSH's form and public one: making keys takes an emulated
    guest seconds.
    """

    public_key: str
    password: str | None
    host_key: tuple[str, str]


@dataclass(frozen=True)
class Seed:
    """The files of a seed, by their paths in it; ``kind`` is nocloud or config-drive."""

    kind: str
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """What is the same for seeds with the same files; an ISO has the time of its making in it."""
        digest = hashlib.sha256(self.kind.encode())
        for name, content in sorted(self.files.items()):
            digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:24]

    def write(self, path: Path) -> None:
        """Write the seed as an ISO 9660 file system. Raises OSError."""
        import pycdlib

        iso = pycdlib.PyCdlib()
        iso.new(interchange_level=3, vol_ident=_LABELS[self.kind], rock_ridge="1.09", joliet=3)
        made = set()
        for number, (name, content) in enumerate(sorted(self.files.items())):
            *folders, last = name.split("/")
            plain = "".join(f"/D{folder.upper()[:7]}" for folder in folders)
            for depth in range(1, len(folders) + 1):
                folder = "/" + "/".join(folders[:depth])
                if folder not in made:
                    made.add(folder)
                    short = "".join(f"/D{each.upper()[:7]}" for each in folders[:depth])
                    iso.add_directory(short, rr_name=folders[depth - 1], joliet_path=folder)
            iso.add_fp(io.BytesIO(content), len(content), f"{plain}/F{number}.;1", rr_name=last, joliet_path=f"/{name}")
        whole = io.BytesIO()
        iso.write_fp(whole)
        iso.close()
        write_atomically(path, whole.getvalue(), 0o600)  # a key and a password are in it


def make_seed(
    kind: str,
    *,
    name: str,
    account: Account,
    user_data: UserData | None = None,
    meta_data: Mapping[str, object] | None = None,
) -> Seed:
    """Return the seed of a machine called ``name``; ``meta_data`` replaces what is ours, key by key.

    Raises OSError when the file ``user_data`` cannot be read.
    """
    user = _user_data(user_data)
    vendor = _CLOUD_CONFIG + _json(_vendor_config(account))
    host = host_name(name)
    # A guest runs user-data once for each instance-id: other contents are another instance.
    told = _json([host, account.public_key, vendor, dict(meta_data or {})]).encode() + user
    instance = f"i-{hashlib.sha256(told).hexdigest()[:16]}"
    keys = {_KEY_NAME: f"{account.public_key}\n"}  # CirrOS puts them one behind the other as they are
    if kind == "nocloud":
        about = {"instance-id": instance, "local-hostname": host, "public-keys": keys, **(meta_data or {})}
        return Seed(
            kind, {"meta-data": _json(about).encode(), "user-data": user, "vendor-data": f"{vendor}\n".encode()}
        )
    about = {"uuid": instance, "hostname": host, "name": host, "public_keys": keys, **(meta_data or {})}
    files = {"meta_data.json": _json(about).encode(), "vendor_data.json": _json({"cloud-init": vendor}).encode()}
    if user:
        files["user_data"] = user
    return Seed(kind, {f"openstack/latest/{name}": content for name, content in files.items()})


def host_name(name: str) -> str:
    """Return a machine's name as a host name (RFC 952): letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "vm"


def _vendor_config(account: Account) -> dict[str, object]:
    private, public = account.host_key
    config: dict[str, object] = {"ssh_keys": {"ed25519_private": private, "ed25519_public": public}}
    # sudo wants to know its host's address, and there may be no network that knows it.
    config["manage_etc_hosts"] = "localhost"
    if account.password is not None:
        config |= {"password": account.password, "chpasswd": {"expire": False}}
    return config


def _user_data(given: UserData | None) -> bytes:
    if given is None:
        return b""
    if isinstance(given, str):
        return given.encode()
    if isinstance(given, Mapping):
        return f"{_CLOUD_CONFIG}{_json(given)}\n".encode()
    return Path(given).read_bytes()


def _json(value: object) -> str:
    """JSON is YAML, and what CirrOS reads."""
    return json.dumps(value, indent=1)
