"""What a file's content must hash to: written down, read in a publisher's list, computed."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.spec.image import DIGESTS

_KINDS = {digits: kind for kind, digits in DIGESTS.items()}
_STRENGTH = {kind: rank for rank, kind in enumerate(DIGESTS)}

# coreutils' md5sum and its kin: "HEX  name", with "*" before the name when it was read as binary.
_GNU = re.compile(r"(?P<hex>[0-9a-f]{32,128})[ \t]+\*?(?P<name>\S.*)", re.IGNORECASE)
# Their --tag, BSD's md5 and OpenSSL's dgst: "SHA256 (name) = HEX".
_BSD = re.compile(r"(?P<kind>\w+) ?\((?P<name>.+)\) ?= ?(?P<hex>[0-9a-f]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Checksum:
    """A hash of ``kind`` md5, sha1, sha256 or sha512; ``hex`` are its digits, in lower case.

    Raises SpecError for another kind, or digits that are none of that kind.
    """

    kind: str
    hex: str

    def __post_init__(self) -> None:
        if not _well_formed(self.kind, self.hex):
            raise _malformed(str(self))

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Return the checksum that is written ``KIND:HEX``, or as hex digits alone. Raises SpecError."""
        kind, colon, digits = text.strip().lower().rpartition(":")
        if not colon:
            kind = _KINDS.get(len(digits), "")
        if not _well_formed(kind, digits):
            raise _malformed(text)
        return cls(kind, digits)

    @classmethod
    def of_stream(cls, kind: str, stream: io.BufferedIOBase) -> Checksum:
        """Return the checksum of what is still to be read of a stream, which is read in pieces. Raises OSError."""
        # Not for security, where MD5 and SHA-1 are forbidden: some publishers offer nothing better.
        digest = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False))
        return cls(kind, digest.hexdigest())

    @classmethod
    def of_file(cls, kind: str, path: Path) -> Checksum:
        """Return the checksum of a file. Raises OSError."""
        with path.open("rb") as stream:
            return cls.of_stream(kind, stream)

    @property
    def title(self) -> str:
        """The kind as people write it: ``SHA-256``."""
        return self.kind.upper().replace("SHA", "SHA-")

    def __str__(self) -> str:
        return f"{self.kind}:{self.hex}"


def find_checksum(text: str, filename: str, *, origin: str = "the checksum file") -> Checksum:
    """Return a file's checksum out of a publisher's list, the strongest of several.

    The list has lines ``HEX  name`` or ``SHA256 (name) = HEX``, among any others, such as those of a PGP signature;
    or it is nothing but the hex digits. A name with a folder counts when none is there without; ``origin`` is where
    the list comes from, for the error. Raises ImageUnavailable when the file is not in it, or with several checksums.
    """
    lines = [line.strip() for line in text.splitlines()]
    listed = [entry for entry in map(_entry, lines) if entry is not None]
    found = [checksum for name, checksum in listed if name == filename]
    found = found or [checksum for name, checksum in listed if name.rpartition("/")[2] == filename]
    if not found and len(bare := [line for line in lines if line and not line.startswith("#")]) == 1:
        digits = bare[0].lower()
        kind = _KINDS.get(len(digits), "")
        found = [Checksum(kind, digits)] if _well_formed(kind, digits) else []
    if not found and len(listed) == 1 and origin.rpartition("/")[2].startswith(filename):
        # The file's own list, which may name what the file was called before it was published (openSUSE does).
        found = [listed[0][1]]
    if not found:
        raise ImageUnavailable(
            f"{origin} has no checksum of {filename} ({_others(listed)})",
            hint="the publisher may have renamed the file: check both addresses",
        )
    strongest = max(_STRENGTH[checksum.kind] for checksum in found)
    best = {checksum for checksum in found if _STRENGTH[checksum.kind] == strongest}
    if len(best) > 1:
        several = ", ".join(sorted(map(str, best)))
        raise ImageUnavailable(f"{origin} has several checksums of {filename}: {several}")
    return best.pop()


def _entry(line: str) -> tuple[str, Checksum] | None:
    """Return the name and the checksum in a line of a list, None if it is another line."""
    match = _BSD.fullmatch(line)
    if match is not None:
        kind = match["kind"].lower()
    else:
        match = _GNU.fullmatch(line)
        kind = _KINDS.get(len(match["hex"]), "") if match is not None else ""
    if match is None or not _well_formed(kind, match["hex"].lower()):
        return None
    return match["name"], Checksum(kind, match["hex"].lower())


def _others(listed: list[tuple[str, Checksum]]) -> str:
    names = sorted({name for name, _ in listed})
    if not names:
        return "it lists no file at all"
    return f"it lists {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _well_formed(kind: str, digits: str) -> bool:
    return len(digits) == DIGESTS.get(kind) and re.fullmatch("[0-9a-f]+", digits) is not None


def _malformed(text: str) -> SpecError:
    kinds = ", ".join(f"{kind} ({digits} hex digits)" for kind, digits in DIGESTS.items())
    return SpecError(
        f"checksum {text!r} is not KIND:HEX, as in 'sha256:9f86d0…', of the kinds {kinds}",
        keyword="checksum",
        value=text,
    )
