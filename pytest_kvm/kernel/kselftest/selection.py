"""Which tests of an installation are meant: its list, and the names of collections and of single tests."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pytest_kvm.errors import SpecError

# What the runner calls a test: "selftests: net: gro.sh".
_HEADER = re.compile(r"selftests: ([^:]+): ([^/]*)")
_NUMBER = re.compile(r"(\d+)(/|$)")
# As many names are listed in an error.
_SHOWN = 20


@dataclass(frozen=True)
class Selected:
    """Tests of one ``collection``; ``whole`` says that it is all of them, in the order of the list."""

    collection: str
    tests: tuple[str, ...]
    whole: bool

    @property
    def options(self) -> list[str]:
        """Those of run_kselftest.sh."""
        if self.whole:
            return ["-c", self.collection]
        return [word for test in self.tests for word in ("-t", f"{self.collection}:{test}")]

    def name(self, case: str) -> str:
        """Return a case's name as it is asked for: ``net:gro.sh``, with what is in it behind a slash."""
        said = _HEADER.match(case)
        if said is not None:
            return f"{said[1]}:{said[2]}{case[said.end() :]}"
        number = _NUMBER.match(case)
        if number is not None and 0 < int(number[1]) <= len(self.tests):  # it did not run
            return f"{self.collection}:{PurePosixPath(self.tests[int(number[1]) - 1]).name}{case[number.end(1) :]}"
        return f"{self.collection}:{case}"


def read_list(text: str) -> dict[str, tuple[str, ...]]:
    """Return the tests by their collections, of the text of kselftest-list.txt."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        collection, colon, test = line.strip().partition(":")
        if colon:
            found.setdefault(collection, []).append(test)
    return {collection: tuple(tests) for collection, tests in found.items()}


def select(names: Sequence[str], available: Mapping[str, Sequence[str]], where: str) -> list[Selected]:
    """Return what is to be run, a collection once each; raises SpecError for what ``where`` does not have."""
    chosen: dict[str, list[str]] = {}
    whole: set[str] = set()
    for name in names:
        collection, colon, test = name.partition(":")
        if collection not in available:
            raise _unknown(name, f"no collection '{collection}'", collection, list(available), where)
        if not colon:
            whole.add(collection)
        elif test not in available[collection]:
            what = f"no test '{test}' in '{collection}'"
            raise _unknown(name, what, test, available[collection], where)
        chosen.setdefault(collection, []).append(test)
    return [
        Selected(
            collection,
            tuple(available[collection] if collection in whole else dict.fromkeys(tests)),
            collection in whole,
        )
        for collection, tests in chosen.items()
    ]


def _unknown(name: str, what: str, word: str, names: Sequence[str], where: str) -> SpecError:
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    listed = f"there are {', '.join(names[:_SHOWN])}{more}" if names else "there is none"
    return SpecError(f"vm.kselftest({name!r}): {what} in {where}{hint} {listed}", value=name)
