"""One thing that the doctor has looked at: what was found, what it is for, what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    """What was found: ``note`` is about what works, and may surprise."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found.

    ``purpose`` is what it is for. ``fix`` mends it, a command or a hint a line. ``needed`` says that no machine runs
    without it. ``package`` has it: an empty text for one that package managers are known to have, None for none.
    ``data`` are figures and paths for programs.
    """

    group: str
    name: str
    state: State
    text: str
    purpose: str = ""
    fix: str = ""
    needed: bool = False
    package: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether it can be used."""
        return self.state in (State.OK, State.NOTE)

    def facts(self) -> dict[str, object]:
        """Return it for JSON."""
        texts = {"text": self.text, "purpose": self.purpose, "fix": self.fix}
        return (
            {"group": self.group, "name": self.name, "state": self.state.value, "needed": self.needed}
            | texts
            | {"data": dict(self.data)}
        )
