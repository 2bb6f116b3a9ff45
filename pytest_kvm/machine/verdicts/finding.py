"""Something that went wrong in a machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from pytest_kvm.errors import GuestPanic, KernelSplat, MachineError
from pytest_kvm.kernel.traces.decoding import Decoded, raw

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

    ``fatal`` says that the machine cannot go on. ``make`` makes the error, ``decode`` finds the lines of source in the
    text: that can take a second or two, and is done when somebody looks.
    """

    kind: str
    title: str
    text: str = ""
    fatal: bool = True
    make: Callable[[], MachineError] = field(repr=False)
    decode: Callable[[str], Decoded] = field(default=raw, repr=False)
    # A test said that it would come; somebody was told, so that it need not be judged any more.
    expected: bool = field(default=False, repr=False)
    told: bool = field(default=False, repr=False)
    _made: list[BaseException] = field(default_factory=list, repr=False)

    @cached_property
    def decoded(self) -> Decoded:
        """The text with the lines of source that it speaks of, where there is debug information."""
        return self.decode(self.text)

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


def panic(
    name: str, kind: str, title: str, text: str, *, console: str = "", decode: Callable[[str], Decoded] = raw
) -> Finding:
    """Return the finding of a guest that cannot go on; the ``console`` is shown where it printed no report."""

    def make() -> GuestPanic:
        how = _HOW.get(kind, f"the guest cannot go on ({kind})")
        detail = title.removeprefix(f"{kind}: ")
        message = f"VM {name!r}: {how}" + (f": {detail}" if detail and detail != kind else "")

        def evidence() -> str:
            return _evidence("The guest printed", found.decoded) or _evidence("Console is at", raw(console))

        return GuestPanic(message, kind=kind, title=title, trace=text, evidence=evidence)

    found = Finding(kind=kind, title=title, text=text, make=make, decode=decode)
    return found


def splat(name: str, kind: str, title: str, text: str, *, decode: Callable[[str], Decoded] = raw) -> Finding:
    """Return the finding of a kernel that complained and went on."""

    def make() -> KernelSplat:
        def evidence() -> str:
            return _evidence("The kernel printed", found.decoded)

        return KernelSplat(f"VM {name!r}: {title}", kind=kind, title=title, trace=text, evidence=evidence)

    found = Finding(kind=kind, title=title, text=text, fatal=False, make=make, decode=decode)
    return found


def _evidence(label: str, report: Decoded) -> str:
    return f"\n{label}:\n{abridged(report)}" if report.text.strip() else ""


def abridged(report: Decoded) -> str:
    """Return the report without what is in the middle of a long one; what was decoded does not make it longer."""
    groups = report.lines
    first, last = _SHOWN
    if len(groups) > first + last + 1:
        groups = [*groups[:first], [f"[{len(groups) - first - last} lines left out]"], *groups[-last:]]
    return Decoded(groups, report.notes).text
