"""Reports as guests printed them, each with what is to be made of it.

A sample is a file: lines "source: …" and "report: kind | title | fatal or goes on", an empty line, and what was
printed, from the first line of a report to the last one of a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.guest.recognisers.scanner import Scanner
from pytest_kvm.guest.recognisers.splat import Splat

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Sample:
    """What was printed, and the reports in it: kind, title, whether it is fatal."""

    name: str
    reports: list[tuple[str, str, bool]]
    lines: list[str]

    @property
    def timed(self) -> bool:
        """Whether its messages carry the time."""
        return self.lines[0].startswith("[")

    def __str__(self) -> str:
        return self.name


def _sample(path: Path) -> Sample:
    head, _, body = path.read_text().partition("\n\n")
    reports = []
    for line in head.splitlines():
        field, value = line.split(": ", 1)
        if field == "report":
            kind, title, fatal = value.split(" | ")
            assert fatal in ("fatal", "goes on"), path
            reports.append((kind, title, fatal == "fatal"))
        else:
            assert field == "source", path
    return Sample(path.stem, reports, body.removesuffix("\n").split("\n"))


SAMPLES = [_sample(path) for path in sorted(FOLDER.glob("*.txt"))]


def printed(lines: list[str], end: str = "\r\n") -> bytes:
    """Return the lines as a console has them."""
    return "".join(line + end for line in lines).encode()


def scan(*chunks: bytes) -> list[Splat]:
    """Return all reports in what is fed to a new scanner."""
    scanner = Scanner()
    found = [splat for chunk in chunks for splat in scanner.feed(chunk)]
    return found + scanner.finish()


def summary(splats: list[Splat]) -> list[tuple[str, str, bool]]:
    """Return what a sample says of its reports."""
    return [(splat.kind, splat.title, splat.fatal) for splat in splats]
