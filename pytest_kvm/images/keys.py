"""The SSH keys by which the built-in guest and its user know each other, made once for a cache."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.files import write_atomically

_KIND = b"ssh-ed25519"
_OPENSSH = "ssh_host_ed25519_key"


@dataclass(frozen=True)
class Keys:
    """``client`` is the private key's file, ``client_public`` its public half, ``host_dropbear`` a server's.

    Public keys are in OpenSSH's one-line form, without a comment.
    """

    client: Path
    client_public: str
    host_public: str
    host_dropbear: Path


def existing_keys(directory: Path) -> Keys | None:
    """Return the keys in a directory, None if they were not made yet."""
    client, host = directory / "id_ed25519", directory / "dropbear_ed25519_host_key"
    try:
        # The public keys are written last: where both are, all is.
        return Keys(
            client,
            client.with_suffix(".pub").read_text().strip(),
            host.with_suffix(".pub").read_text().strip(),
            host,
        )
    except FileNotFoundError:
        return None


def obtain_keys(directory: Path) -> Keys:
    """Return the keys in a directory, made there if need be; several processes may ask. Raises OSError."""
    import filelock

    keys = existing_keys(directory)
    if keys is not None:
        return keys
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with filelock.FileLock(directory / ".lock"):
        return existing_keys(directory) or make_keys(directory)


def make_keys(directory: Path) -> Keys:
    """Make the keys in a directory that nobody else writes to, and return them.

    Made here because a guest under emulation takes a second for its own at the first connection.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    raw, public_format = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    client_point = client.public_key().public_bytes(raw, public_format)
    host_point = host.public_key().public_bytes(raw, public_format)
    no_encryption = serialization.NoEncryption()
    openssh = client.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, no_encryption)
    host_seed = host.private_bytes(raw, serialization.PrivateFormat.Raw, no_encryption)
    client_path, host_path = directory / "id_ed25519", directory / "dropbear_ed25519_host_key"
    directory.joinpath(_OPENSSH).unlink(missing_ok=True)  # made of an older key
    write_atomically(client_path, openssh, 0o600)
    # Dropbear's own format: the key's type, then seed and public point as one string.
    write_atomically(host_path, _string(_KIND) + _string(host_seed + host_point), 0o600)
    write_atomically(host_path.with_suffix(".pub"), f"{_public(host_point)}\n".encode())
    write_atomically(client_path.with_suffix(".pub"), f"{_public(client_point)}\n".encode())
    return Keys(client_path, _public(client_point), _public(host_point), host_path)


def openssh_host_key(keys: Keys) -> str:
    """Return the server's private key as OpenSSH writes it, always the same text. Raises OSError."""
    import filelock

    path = keys.host_dropbear.with_name(_OPENSSH)
    with filelock.FileLock(path.with_name(".lock")):
        if not path.exists():
            write_atomically(path, _openssh(keys.host_dropbear.read_bytes()), 0o600)
        return path.read_text()


def _openssh(dropbear: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    # At the end of dropbear's file are the seed and the public point, 32 bytes each. OpenSSH's has random bytes in it.
    key = Ed25519PrivateKey.from_private_bytes(dropbear[-64:-32])
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data  # RFC 4251, section 5


def _public(point: bytes) -> str:
    return f"ssh-ed25519 {base64.b64encode(_string(_KIND) + _string(point)).decode()}"
