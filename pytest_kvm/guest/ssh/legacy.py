"""SSH with servers that know SHA-1 only, such as CirrOS 0.3's dropbear of 2012.

paramiko 5 has no SHA-1 any more, rightly: whoever can listen in or step in between could break the key exchange of 1024
bits, or forge a host key's signature. Neither threatens anybody here. The connection leads over this host's loopback
into a guest that was made a moment ago, by QEMU that runs as the same user: who can reach it has no need to break it.

So that no better server is spoken to in this way, this transport is taken only after one that was offered no SHA-1 has
refused for want of it, and even then it prefers everything else.

It imports paramiko, and is to be imported when it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import paramiko
from cryptography.hazmat.primitives import hashes
from paramiko.kex_group14 import KexGroup14SHA256

from pytest_kvm.guest.ssh.transport import GuestTransport

_RSA = "ssh-rsa"


class KexGroup14SHA1(KexGroup14SHA256):
    """diffie-hellman-group14-sha1 (RFC 4253, section 8.2): the group is that of the SHA-256 variant."""

    name = "diffie-hellman-group14-sha1"
    hash_algo = hashlib.sha1


class KexGroup1SHA1(KexGroup14SHA1):
    """diffie-hellman-group1-sha1 (RFC 4253, section 8.1)."""

    name = "diffie-hellman-group1-sha1"
    # RFC 2409, section 6.2: the Second Oakley Group, 2^1024 - 2^960 - 1 + 2^64 * ( [2^894 pi] + 129093 ).
    P = int(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
        "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
        16,
    )
    G = 2


class RSAKeySHA1(paramiko.RSAKey):
    """An RSA key that also signs and verifies with SHA-1 (``ssh-rsa`` of RFC 4253, section 6.6)."""

    HASHES = {**paramiko.RSAKey.HASHES, _RSA: hashes.SHA1}  # type: ignore[misc]  # noqa: RUF012  # Final in the stubs


def _last(names: Iterable[str], *others: str) -> tuple[str, ...]:
    return (*(name for name in names if name not in others), *others)


class LegacyTransport(GuestTransport):
    """A transport that falls back to SHA-1 for key exchange, host keys and RSA signatures."""

    _kex_info = {  # noqa: RUF012  # these four are so in paramiko
        **paramiko.Transport._kex_info,  # type: ignore[attr-defined]
        KexGroup14SHA1.name: KexGroup14SHA1,
        KexGroup1SHA1.name: KexGroup1SHA1,
    }
    _key_info = {**paramiko.Transport._key_info, _RSA: RSAKeySHA1}  # type: ignore[attr-defined]  # noqa: RUF012
    # Old dropbears read twenty names of a list at most (MAX_PROPOSED_ALGO), certificates included: all of these fit.
    _preferred_kex = _last(paramiko.Transport._preferred_kex, KexGroup14SHA1.name, KexGroup1SHA1.name)  # type: ignore[attr-defined]
    _preferred_keys = _last(paramiko.Transport._preferred_keys, _RSA)  # type: ignore[attr-defined]

    @property
    def preferred_pubkeys(self) -> Sequence[str]:
        """What to sign with, the best first: paramiko takes the first one if the server does not say what it knows."""
        ours = _last(super().preferred_pubkeys, _RSA)
        return ours if says_what_it_verifies(self) else (_RSA, *ours)


def says_what_it_verifies(transport: paramiko.Transport) -> bool:
    """Return whether the server names the signatures that it accepts (RFC 8308), as OpenSSH does since 7.2."""
    return "server-sig-algs" in transport.server_extensions  # type: ignore[attr-defined]


def with_sha1(key: paramiko.PKey) -> paramiko.PKey:
    """Return the same private key, able to sign with SHA-1 if it is an RSA key."""
    return RSAKeySHA1(key=key.key) if isinstance(key, paramiko.RSAKey) else key
