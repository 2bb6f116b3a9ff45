"""Watches what a guest prints for reports of what went wrong in it."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.guest.recognisers.cues import Places
from pytest_kvm.guest.recognisers.line import line_of
from pytest_kvm.guest.recognisers.reader import Reader
from pytest_kvm.guest.recognisers.splat import Splat
from pytest_kvm.guest.recognisers.table import CUES, PROMPTS

# Longer lines count as several.
MOST_LINE = 4 << 10
# A message that stands this near to the end of such a piece belongs to the next one.
_MARGIN = 256


class Scanner:
    """Finds the reports in what a guest prints, however it is torn; keeps a few lines of it at most."""

    def __init__(self) -> None:
        self._reader = Reader()
        # The unfinished line.
        self._rest = b""

    @property
    def pending(self) -> Splat | None:
        """The report that has begun and may go on; None when there is none."""
        return self._reader.pending

    def feed(self, data: bytes) -> list[Splat]:
        """Take what came next; return the reports that are complete with it, in their order."""
        text = self._rest + data
        places = CUES.within(text)
        end = text.rfind(b"\n") + 1
        done = self._scan(text, end, places)
        *pieces, self._rest = _pieces(text[end:])
        for piece in pieces:
            found = places.after(end)
            end += len(piece)
            if not self._reader.idle or (found is not None and found < end):
                done += self._reader.read(line_of(piece))
        if self._rest and any(prompt in self._rest for prompt in PROMPTS):
            done += self._take_prompt()
        return done

    def finish(self) -> list[Splat]:
        """Take it that nothing more comes for now: return the report that has begun, and the one in the last line.

        What still comes of them later is left out; the rest of a line that said nothing is not.
        """
        line = line_of(self._rest)
        done: list[Splat] = []
        if self._reader.begins(line):
            self._rest = b""
            done = self._reader.read(line)
        elif self._rest and not self._reader.idle:
            done = self._reader.read(line)
        return done + self._reader.end()

    def _take_prompt(self) -> list[Splat]:
        line = line_of(self._rest)
        if not self._reader.begins(line):
            return []
        self._rest = b""
        return self._reader.read(line)

    def _scan(self, text: bytes, end: int, places: Places) -> list[Splat]:
        """Read the lines up to ``end``, without those that say nothing."""
        done: list[Splat] = []
        position = 0
        while position < end:
            if self._reader.idle:
                found = places.after(position)
                if found is None or found >= end:
                    break
                position = text.rfind(b"\n", position, found) + 1 or position
            line_end = text.index(b"\n", position)
            for piece in _pieces(text[position:line_end]):
                done += self._reader.read(line_of(piece))
            position = line_end + 1
        return done


def _pieces(line: bytes) -> Iterator[bytes]:
    """Yield the pieces of a line that is too long; the last one can go on."""
    while len(line) > MOST_LINE:
        cut = line.rfind(b"[", MOST_LINE - _MARGIN, MOST_LINE)
        cut = cut if cut > 0 else MOST_LINE
        yield line[:cut]
        line = line[cut:]
    yield line
