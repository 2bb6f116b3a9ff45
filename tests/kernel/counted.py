"""A program that counts its lines, as a kernel built for gcov does, with a folder that stands for its build tree."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

_MAIN = """\
#include "twice.h"
int even(int x) { return x % 2 == 0; }
int odd(int x)
{
	return twice(x) % 4 == 2;
}
int main(int count, char **words) { return words[1][0] == 'e' ? even(count) : odd(count); }
"""
_UNUSED = "int never(int x) { return x; }\n"
_HEADER = "static inline int twice(int x) { return 2 * x; }\n"


def build(tree: Path) -> Path:
    """Build it in a folder, which is returned."""
    tree.mkdir(parents=True, exist_ok=True)
    for name, text in {"main.c": _MAIN, "unused.c": _UNUSED, "twice.h": _HEADER}.items():
        (tree / name).write_text(text)
    subprocess.run(["gcc", "--coverage", "main.c", "unused.c", "-o", "program"], cwd=tree, check=True)
    for notes in tree.glob("program-*.gcno"):  # as kbuild has them
        notes.rename(tree / notes.name.removeprefix("program-"))
    return tree


def counters(tree: Path, *words: str) -> bytes:
    """Run it with words, and return an archive of its counters, as they are in debugfs."""
    for word in words:
        subprocess.run(["./program", word], cwd=tree, check=False)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for file in sorted(tree.glob("*.gcda")):
            place = str(tree / file.name.removeprefix("program-"))
            archive.add(file, f".{place}")
            file.unlink()
    return data.getvalue()
