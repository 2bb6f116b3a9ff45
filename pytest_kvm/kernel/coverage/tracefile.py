"""What was run of each source file, and the file of it that lcov, genhtml and others read: geninfo(1)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

# As lcov has it.
_UNNAMEABLE = re.compile(r"\W", re.ASCII)


@dataclass
class Source:
    """How often lines and functions of a source file were run: by line, and by name with its first line."""

    lines: dict[int, int] = field(default_factory=dict)
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def used(self) -> bool:
        """Whether anything in it was run."""
        return any(self.lines.values())

    def add(self, other: Source) -> None:
        """Add what was run elsewhere."""
        for line, count in other.lines.items():
            self.lines[line] = self.lines.get(line, 0) + count
        for name, (line, count) in other.functions.items():
            self.functions[name] = (line, self.functions.get(name, (line, 0))[1] + count)


# By the paths of the source files.
Coverage = dict[str, Source]


def read_gcov(text: str, place: Callable[[str, str], str]) -> Coverage:
    """Return what ``gcov --json-format --stdout`` says, an object in each line.

    ``place(folder, file)`` is the path of a source file that was compiled in a folder.
    """
    found: Coverage = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        data = json.loads(line)
        for file in data["files"]:
            source = Source()
            for each in file["lines"]:
                source.lines[each["line_number"]] = source.lines.get(each["line_number"], 0) + each["count"]
            for each in file["functions"]:
                source.functions[each["name"]] = (each["start_line"], each["execution_count"])
            add(found, {place(data["current_working_directory"], file["file"]): source})
    return found


def add(coverage: Coverage, other: Coverage) -> None:
    """Add what was run elsewhere."""
    for path, source in other.items():
        coverage.setdefault(path, Source()).add(source)


def write(tests: Mapping[str, Coverage]) -> str:
    """Return the tracefile: a record for each test and file that it used; those that none has used are at the end."""
    names = lcov_names(tests)
    used = {path for coverage in tests.values() for path, source in coverage.items() if source.used}
    unused: Coverage = {}
    lines: list[str] = []
    for test, coverage in sorted(tests.items()):
        for path, source in sorted(coverage.items()):
            if source.used:
                lines += _record(names[test], path, source)
            elif path not in used:
                add(unused, {path: source})
    for path, source in sorted(unused.items()):
        lines += _record("", path, source)
    return "".join(f"{line}\n" for line in lines)


def lcov_names(tests: Iterable[str]) -> dict[str, str]:
    """Return the names that lcov has for tests, which are of letters, digits and underscores, each another one."""
    names: dict[str, str] = {}
    for test in sorted(tests):
        name = _UNNAMEABLE.sub("_", test)
        taken, number = set(names.values()), 1
        while name in taken:
            number += 1
            name = f"{_UNNAMEABLE.sub('_', test)}_{number}"
        names[test] = name
    return names


def _record(test: str, path: str, source: Source) -> Iterator[str]:
    yield f"TN:{test}"
    yield f"SF:{path}"
    functions = sorted((line, name, count) for name, (line, count) in source.functions.items())
    for line, name, _ in functions:
        yield f"FN:{line},{name}"
    for _, name, count in functions:
        yield f"FNDA:{count},{name}"
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(1 for _, _, count in functions if count)}"
    for line, count in sorted(source.lines.items()):
        yield f"DA:{line},{count}"
    yield f"LF:{len(source.lines)}"
    yield f"LH:{sum(1 for count in source.lines.values() if count)}"
    yield "end_of_record"
