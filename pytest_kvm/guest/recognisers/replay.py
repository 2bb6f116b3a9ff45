"""Messages that are printed a second time."""

from __future__ import annotations

_REMEMBERED = 512


class Replay:
    """Knows again what was there already; remembers a limited number of messages."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], None] = {}

    def again(self, time: str, text: str) -> bool:
        """Take note of a message; return whether it was there before, with the same time."""
        key = (time, text)
        seen = key in self._seen
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return seen

    def forget(self) -> None:
        """Know nothing again: time has begun anew."""
        self._seen.clear()
