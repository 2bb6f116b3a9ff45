"""The lines that a guest sends on one of its ports, which may be anything, and endless."""

from __future__ import annotations


class Lines:
    """Cuts what arrives into lines, of which at most ``limit`` bytes are kept at any time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._endless = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that have ended, without their ends; None in place of one that has become too long."""
        found: list[bytes | None] = []
        *pieces, rest = data.split(b"\n")
        for piece in pieces:
            self._add(piece, found)
            if not self._endless:
                found.append(bytes(self._rest))
            self._rest = bytearray()
            self._endless = False
        self._add(rest, found)
        return found

    def _add(self, piece: bytes, found: list[bytes | None]) -> None:
        if self._endless:
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            self._rest = bytearray()
            self._endless = True
            found.append(None)
