"""Something that went wrong in a machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pytest_kvm.errors import GuestPanic, KernelSplat, MachineError

# A report that is longer keeps its beginning, which says what happened, and its end.
_SHOWN = (40, 15)
_HOW = {
    "panic": "the guest's kernel panicked",
    "shutdown": "the guest switched itself off, and nobody had asked it to",
    "reboot": "the guest rebooted by itself, and nobody had asked it to",
    "watchdog": "the guest's watchdog fired",
    "firmware": "the firmware found nothing to boot",
    "emergency shell": "the guest came up in an emergency shell",
}


@dataclass(eq=False, kw_only=True)
class Finding:
    """What ``kind`` of thing happened, its ``title``, and the ``text`` that the guest printed about it ("" if nothing).

    ``fatal`` says that the machine cannot go on. ``make`` makes the error.
    """

    kind: str
    title: str
    text: str = ""
    fatal: bool = True
    make: Callable[[], MachineError] = field(repr=False)
    # A test said that it would come; somebody was told, so that it need not be judged any more.
    expected: bool = field(default=False, repr=False)
    told: bool = field(default=False, repr=False)
    _made: list[BaseException] = field(default_factory=list, repr=False)

    def error(self) -> MachineError:
        """Return an error of it, a new one each time."""
        error = self.make()
        self._made.append(error)
        return error

    def is_behind(self, error: BaseException) -> bool:
        """Return whether the error is one of this finding's, or was raised because of one."""
        return any(each is made for each in _chain(error) for made in self._made)

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Return whether the pattern is found in the title or in the text."""
        return bool(pattern.search(self.title) or pattern.search(self.text))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def panic(name: str, kind: str, title: str, text: str, *, console: str = "") -> Finding:
    """Return the finding of a guest that cannot go on; the ``console`` is shown where it printed no report."""

    def make() -> GuestPanic:
        how = _HOW.get(kind, f"the guest cannot go on ({kind})")
        detail = title.removeprefix(f"{kind}: ")
        message = f"VM {name!r}: {how}" + (f": {detail}" if detail and detail != kind else "")
        shown, label = (text, "The guest printed") if text else (console, "Console is at")
        return GuestPanic(message + _evidence(label, shown), kind=kind, title=title, trace=text)

    return Finding(kind=kind, title=title, text=text, make=make)


def splat(name: str, kind: str, title: str, text: str) -> Finding:
    """Return the finding of a kernel that complained and went on."""

    def make() -> KernelSplat:
        message = f"VM {name!r}: {title}{_evidence('The kernel printed', text)}"
        return KernelSplat(message, kind=kind, title=title, trace=text)

    return Finding(kind=kind, title=title, text=text, fatal=False, make=make)


def _evidence(label: str, text: str) -> str:
    return f"\n{label}:\n{abridged(text)}" if text.strip() else ""


def abridged(text: str) -> str:
    """Return the text without what is in the middle of a long one."""
    lines = text.strip("\n").splitlines()
    first, last = _SHOWN
    if len(lines) > first + last + 1:
        lines = [*lines[:first], f"[{len(lines) - first - last} lines left out]", *lines[-last:]]
    return "\n".join(lines)
